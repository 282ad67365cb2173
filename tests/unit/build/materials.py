"""What methods are given, made of the tests' checkpoints."""

from __future__ import annotations

from pathlib import Path

from tests.model_dirs import TASK_OF, ModelDirs
from ts_handlers.build.engine import Material
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.target import TARGETS, TargetCpu

SENTENCES = (
    "A sentence of a few words.",
    "Nobody expected the train to leave on time, and it did not.",
    "Short.",
    "The committee, having met twice already, put off its decision once more until the figures of the year are known.",
    "Is it raining in Toronto?",
)


def material(
    model_dirs: ModelDirs, kind: str, work: Path, target: TargetCpu = TARGETS["avx2"], *, num_samples: int = 0
) -> Material:
    """Return the material of a checkpoint, with calibration samples if a number of them is given."""
    source = load_source(str(model_dirs.checkpoint(kind)), TASK_OF[kind])
    dataset = None
    if num_samples:
        file = work / "calibration.txt"
        file.write_text("\n".join(SENTENCES[index % len(SENTENCES)] for index in range(num_samples)), encoding="utf-8")
        dataset = Dataset(source, file)
    (work / "shared").mkdir()
    return Material(source, work / "shared", target, dataset, progress=lambda _: None)
