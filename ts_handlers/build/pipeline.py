"""The steps of a build, in order; nothing reaches the model store before the last one succeeded."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build import archive, check, export, quantize, smoke
from ts_handlers.build.source import Source, load_source, sentence_settings
from ts_handlers.config import load_config
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import ModelFiles, Session, open_session
from ts_handlers.tasks import TASKS

_PACKAGES = ("ts_handlers", "torch", "torchserve", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        source: Hugging Face folder or hub id.
        task: Hugging Face task name.
        name: Model name.
        version: Model version.
        output: Folder for the results.
        precision: fp32, bf16 or int8.
        backend: onnx or torch.
        handler: A team's own handler file; None: the task's.
        samples: Texts to check the build on; None: built-in ones.
        tolerance: Largest relative error against the source; None: the precision's.
        sample_request: JSON file with a request the finished archive must answer; None: the task's.
        settings: Overrides of the handler section.
        response_timeout_s: Seconds a worker may take for a batch.
        startup_timeout_s: Seconds a worker may take to load the model.
        weight: Its share of the workers against other models' weights, for `ts-handlers configure`.
        force: Whether an archive of this name may be replaced.
    """

    source: str
    task: str
    name: str
    version: str
    output: Path
    precision: str
    backend: str
    handler: Path | None = None
    samples: Path | None = None
    tolerance: float | None = None
    sample_request: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    response_timeout_s: int = 120
    startup_timeout_s: int = 120
    weight: float = 1.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """The model's files in the archive, and what was done to make them.

    Attributes:
        serialized_file: The model.
        extra_files: What it needs beside it.
        details: What was done, for the build report.
    """

    serialized_file: Path
    extra_files: list[Path]
    details: dict[str, Any]


def build(request: BuildRequest, progress: Progress = print) -> Path:
    """Make NAME.mar and NAME.build.json; return the .mar.

    Raises:
        OperatorError: What is wrong with the source, the settings or the result; nothing is left behind.
    """
    _check_combination(request)
    texts = check.read_samples(request.samples)
    if request.handler is not None:
        archive.check_handler_file(request.handler)
    request.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{request.name}-", dir=request.output) as scratch:
        work = Path(scratch)
        with _step(progress, f"load {request.source} for {request.task}"):
            source = load_source(request.source, request.task)
        handler_section = make_handler_section(request, source)
        engine = make_engine(request, source, work, progress)
        with _step(progress, f"check against the source on {len(texts)} samples"):
            session = _open(engine, handler_section)
            result = check.check_build(source, session, texts, request.precision, request.tolerance)
            latency = check.latency_table(session, source)
        progress(
            f"  relative error {result.relative_error:.2g}, mean cosine {result.mean_cosine:.5f}, latency ms {latency}"
        )
        with _step(progress, "archive"):
            mar = _archive(request, source, engine, handler_section, work)
        with _step(progress, "load and run it in a fresh process"):
            outcome = smoke.smoke_test(mar, _sample_request(request), timeout_s=request.startup_timeout_s)
        report = _report(request, source, engine, handler_section)
        report |= {
            "check": result.as_dict(),
            "latency_ms": latency,
            "size_bytes": mar.stat().st_size,
            "rss_mb": outcome["rss_mb"],
            "load_seconds": outcome["load_seconds"],
        }
        report_file = work / f"{request.name}.build.json"
        report_file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        finished = request.output / mar.name
        if finished.exists() and not request.force:
            raise OperatorError(f"{finished} was made meanwhile by another build; replace it with --force")
        report_file.replace(request.output / report_file.name)
        mar.replace(finished)
    progress(f"made {finished} ({finished.stat().st_size / 2**20:.1f} MiB) and {request.name}.build.json")
    return finished


def make_handler_section(request: BuildRequest, source: Source) -> dict[str, Any]:
    """Return model-config.yaml's `handler:` section, with the settings of the command line over it.

    Raises:
        ConfigError: A setting that the handler would refuse.
    """
    tokenizer: dict[str, Any] = {"max_length": source.max_length, "pad_token_id": source.tokenizer.pad_token_id}
    if source.tokenizer.unk_token_id is not None:
        tokenizer["unk_token_id"] = source.tokenizer.unk_token_id
    output: dict[str, Any] = {}
    if source.task == "text-classification" and source.model.config.problem_type:
        output["problem_type"] = source.model.config.problem_type
    if source.task == "feature-extraction":
        found = sentence_settings(source.folder)
        tokenizer["max_length"] = min(source.max_length, found.pop("max_length", source.max_length))
        output |= found
    section: dict[str, Any] = {
        "task": request.task,
        "runtime": {"backend": request.backend, "precision": request.precision},
        "tokenizer": tokenizer,
        "output": output,
    }
    section = _merged(section, request.settings)
    if request.handler is None:
        load_config({"handler": section}, TASKS[request.task].output_config)
    return section


def make_engine(request: BuildRequest, source: Source, work: Path, progress: Progress = print) -> Engine:
    """Write the model's files into `work`: the checkpoint, or the exported, fused and quantized graph."""
    if request.backend == "torch":
        folder = work / "model"
        with _step(progress, "write the checkpoint"):
            dtype = torch.bfloat16 if request.precision == "bf16" else torch.float32
            source.model.to(dtype).save_pretrained(folder)
            source.model.to(torch.float32)
        return Engine(folder / "model.safetensors", [folder / "config.json"], {})
    exported, fused = work / "exported.onnx", work / "fused.onnx"
    with _step(progress, "export to ONNX"):
        export.export_onnx(source, exported)
    with _step(progress, "fuse attention for ONNX Runtime"):
        operators = export.fuse(source, exported, fused)
    if not operators.get("Attention"):
        progress(f"  no attention was fused ({source.model.config.model_type}): right, and slower than it could be")
    details: dict[str, Any] = {"opset": export.OPSET, "fused_operators": operators}
    model = work / "model.onnx"
    if request.precision == "int8":
        settings = quantize.Int8Settings()
        with _step(progress, "quantize to INT8"):
            quantize.quantize_int8(fused, model, settings)
        details["quantization"] = {"method": "dynamic", **settings.as_dict()}
    else:
        fused.rename(model)
    return Engine(model, [], details)


def _open(engine: Engine, handler_section: Mapping[str, Any]) -> Session:
    """Open the built model as a worker will, with one thread."""
    runtime = load_config({"handler": {"runtime": handler_section["runtime"]}}).runtime
    share = cpu_share(CpuBudget((0,)), 1, threads=1)
    torch.set_num_threads(1)
    files = ModelFiles(engine.serialized_file.parent, engine.serialized_file.name)
    return open_session(runtime, files, share)


def _archive(
    request: BuildRequest, source: Source, engine: Engine, handler_section: Mapping[str, Any], work: Path
) -> Path:
    folder = work / "files"
    folder.mkdir()
    return archive.run_archiver(
        name=request.name,
        version=request.version,
        serialized_file=engine.serialized_file,
        handler_file=request.handler or archive.write_shim(request.task, folder),
        config_file=archive.write_model_config(
            handler_section,
            folder,
            response_timeout_s=request.response_timeout_s,
            startup_timeout_s=request.startup_timeout_s,
        ),
        extra_files=[
            *engine.extra_files,
            *archive.write_tokenizer(source, folder),
            *archive.write_labels(source, folder),
        ],
        export_path=work,
    )


def _sample_request(request: BuildRequest) -> Any:
    if request.sample_request is not None:
        try:
            return json.loads(request.sample_request.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OperatorError(f"--sample-request {request.sample_request} cannot be read as JSON: {error}") from error
    if request.task == "question-answering":
        return {"question": check.SAMPLE_QUESTIONS[0], "context": check.SAMPLE_TEXTS[3]}
    return check.SAMPLE_TEXTS[0]


def _report(
    request: BuildRequest, source: Source, engine: Engine, handler_section: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": request.name,
        "version": request.version,
        "weight": request.weight,
        "task": request.task,
        "backend": request.backend,
        "precision": request.precision,
        "source_sha256": source.digest,
        "architecture": type(source.model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in source.model.parameters()),
        "handler": dict(handler_section),
        **engine.details,
        "built_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu in place of onnxruntime, say
        return None


def _check_combination(request: BuildRequest) -> None:
    known = {"onnx": ("fp32", "int8"), "torch": ("fp32", "bf16")}
    if request.precision not in known[request.backend]:
        raise OperatorError(
            f"--backend {request.backend} has no {request.precision}; it has {' and '.join(known[request.backend])}"
        )


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


@contextmanager
def _step(progress: Progress, what: str) -> Iterator[None]:
    progress(f"{what} ...")
    started = time.perf_counter()
    yield
    progress(f"  done in {time.perf_counter() - started:.1f} s")
