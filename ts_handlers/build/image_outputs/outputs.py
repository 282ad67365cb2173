"""What a model of images returns, as the handlers read it: which outputs, what they are, and how many labels there are.

Nothing is told by the names of nodes: a model that ends in a softmax is one whose outputs are between 0 and 1 and sum to 1,
whatever it is fed and in whatever format it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ts_handlers.build.image_outputs.pixels import read_segmentation
from ts_handlers.build.image_outputs.probe import Probe
from ts_handlers.build.image_outputs.queries import read_detection
from ts_handlers.build.image_outputs.reading import Labels, Reading, shapes
from ts_handlers.build.image_outputs.scores import read_classification
from ts_handlers.errors import OperatorError

_READERS: Mapping[str, Callable[[Probe, Labels | None, str], Reading]] = {
    "image-classification": read_classification,
    "image-segmentation": read_segmentation,
    "object-detection": read_detection,
}


def read_outputs(task: str, found: Probe, labels: Labels | None, what: str, *, is_free: bool = False) -> Reading:
    """Find out what a model returns.

    Args:
        task: A task of images.
        found: What it returned.
        labels: Their names; None where none were given.
        what: Name of the model, for errors.
        is_free: Whether a handler of one's own reads the outputs, so that they may be anything, and none is left out.

    Raises:
        OperatorError: It returns nothing that the task's handler can read, or another number of labels.
    """
    first = found.pictures[0]
    usable = [name for name, array in first.items() if array.shape[:1] == (1,)]
    if not usable or (is_free and len(usable) < len(first)):
        others = ", ".join(name for name in first if name not in usable) or "any"
        raise OperatorError(
            f"{what} gives {shapes(first)} of one picture: the first axis of {others} is not that of pictures; export it "
            "with one"
        )
    try:
        reading = _READERS[task](_without_others(found, usable), labels, what)
    except OperatorError as error:
        if not is_free:
            raise
        note = f"the outputs {', '.join(first)} are left to --handler; the task's own would refuse them: {error}"
        return Reading({_name(name): name for name in first}, {}, labels or (), (note,))
    if not is_free:
        left = [name for name in first if name not in reading.keys.values()]
        note = f"of the outputs {', '.join(reading.keys.values())} is read, and {', '.join(left)} is left out"
        return replace(reading, notes=(note, *reading.notes)) if left else reading
    unread = {_name(name): name for name in first if name not in (*reading.keys, *reading.keys.values())}
    return Reading({**reading.keys, **unread}, reading.output, reading.labels, reading.notes)


def _without_others(found: Probe, names: Sequence[str]) -> Probe:
    """Leave out outputs that are not one row a picture, a loss or a table of anchors, say."""
    pictures, far = (
        [{name: outputs[name] for name in names} for outputs in some] for some in (found.pictures, found.far)
    )
    return replace(found, pictures=pictures, far=far)


def _name(key: str) -> str:
    """Return what an output is called in the archive; one that has a number only needs a name."""
    return f"output_{key}" if key.isdigit() else key
