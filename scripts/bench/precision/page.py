"""docs/precision.md: what was measured, between two markers, so that what people write around it stays."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.page import write_between
from bench.precision.measured import Measured
from bench.report import table
from ts_handlers.build.gate import Limits
from ts_handlers.build.trial import Trial
from ts_handlers.cpu.features import CpuInfo

BEGIN = "<!-- scripts/precision writes from here -->"
END = "<!-- scripts/precision writes to here -->"

_EMPTY_PAGE = f"# What precision costs and gains\n\n{BEGIN}\n{END}\n"
_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "torchao", "neural-compressor-pt", "transformers")
_MIB = 2**20


def write_page(path: Path, measured: str) -> None:
    """Put what was measured between the page's markers; make the page where there is none.

    Raises:
        BenchError: The page has not one of each marker.
    """
    write_between(path, BEGIN, END, measured, empty_page=_EMPTY_PAGE)


def page_text(models: Sequence[Measured], command: str, machine: str, plots: Mapping[str, str]) -> str:
    """Return what was measured as Markdown.

    Args:
        models: What was measured.
        command: What made it.
        machine: What it was measured on.
        plots: File of each model's plot, by the model's name, as seen from the page.
    """
    limits = Limits()
    intro = (
        f"Made by `{command}` on {machine}, with {_versions()}. Each engine has one thread. Those of a table were timed in "
        "turns in one process: their ratios travel, their milliseconds do not. *ms a sample* is what engines are ranked by: "
        "up to 64 samples of the data in batches of 8, grouped and padded as a worker would; *1 x n* and *8 x n* are calls "
        "of one and of eight sentences of n tokens, the data's median. *Gate* is the default one of `ts-handlers build`, "
        f"against the source in PyTorch: with labels at most {limits.max_accuracy_drop:g} points of accuracy lost, else a "
        f"mean cosine of {limits.min_mean_cosine:g} and {limits.min_cosine:g} of the worst sample."
    )
    return "\n\n".join([intro, *(_model_text(model, plots.get(model.name)) for model in models)])


def machine_text(cpu: CpuInfo, cpus_usable: int) -> str:
    """Say what the machine is."""
    sets = ", ".join(cpu.instruction_sets) or "no vector instructions of note"
    lacks = [name for name, has in (("VNNI", cpu.has_vnni), ("bf16", cpu.has_bf16)) if not has]
    without = f"; no {' and no '.join(lacks)}" if lacks else ""
    name = f"{'a virtual ' if cpu.is_virtual else ''}{cpu.model_name or 'CPU without a name'}"
    return f"{cpus_usable} CPUs of {name} ({sets}{without})"


def _model_text(model: Measured, plot: str | None) -> str:
    parts = [f"## {model.title}", model.about, table(_rows(model))]
    if model.aim is not None:
        parts.append(model.aim.verdict(model))
    if plot is not None:
        parts.append(f"![speed over cosine of every engine of {model.name}]({plot})")
    if model.not_made:
        parts.append("Not made here:\n\n" + "\n".join(f"* {name}: {why}" for name, why in model.not_made.items()))
    return "\n\n".join(parts)


def _rows(model: Measured) -> list[list[str]]:
    shapes = _median_shapes(model.made)
    has_accuracy = any(trial.quality and trial.quality.accuracy is not None for trial in model.made)
    has_agreement = any(trial.quality and trial.quality.agreement is not None for trial in model.made)
    head = ["engine", "precision", "method"]
    head += ["accuracy %"] * has_accuracy + ["agreement %"] * has_agreement
    head += ["mean cosine", "worst", "MiB", *(_shape_head(model, shape) for shape in shapes), "ms a sample"]
    head += ["x fp32", "gate"]
    rows = [head]
    for trial in model.made:
        quality, latency, method = trial.quality, trial.latency, trial.method
        if quality is None or latency is None:
            continue
        row = [method.backend, method.precision, " ".join(filter(None, (method.quantizer, method.form)))]
        row += [_number(quality.accuracy, 2)] * has_accuracy + [_number(quality.agreement, 2)] * has_agreement
        row += [_number(quality.mean_cosine, 5), _number(quality.min_cosine, 4), _number(trial.size_bytes / _MIB, 1)]
        row += [_number(latency.ms_by_shape.get(shape), 2) for shape in shapes]
        row += [_number(latency.ms_per_sample, 2), _number(model.speed(trial), 2)]
        rows.append([*row, "fails" if trial.failures else "passes"])
    return rows


def _median_shapes(made: Sequence[Trial]) -> list[str]:
    """Return the shapes of one and of eight samples of the median length; they are in ascending order of length."""
    shapes = list(made[0].latency.ms_by_shape) if made and made[0].latency else []
    half = len(shapes) // 2
    return [group[len(group) // 2] for group in (shapes[:half], shapes[half:]) if group]


def _shape_head(model: Measured, shape: str) -> str:
    size, length = shape.split("x")
    return f"{size} x {length} ms" if model.is_text else f"{size} {'picture' if size == '1' else 'pictures'} ms"


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203  # an optional engine's
            continue
    return ", ".join(found)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
