"""The steps of a build, in order; nothing reaches the model store before the last one succeeded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ts_handlers.build import archive, check, inputs
from ts_handlers.build.choose import Opener, choose, open_data, torch_threads_kept
from ts_handlers.build.engine import Engine, Material
from ts_handlers.build.methods.catalogue import candidates
from ts_handlers.build.report import SUFFIX, BuildReport, details_of
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.sections import handler_section, source_section
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import Source
from ts_handlers.build.sources.tokenizer import compare_tokenizers
from ts_handlers.build.steps import Progress, step
from ts_handlers.build.target import is_here, target_cpu
from ts_handlers.build.verify.run import Verified, verify
from ts_handlers.config.sections import load_config
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError


def build(request: BuildRequest, progress: Progress = print) -> Path:
    """Make NAME.mar and NAME.build.json; return the .mar.

    Raises:
        OperatorError: What is wrong with the source, the settings or the result; nothing is left behind.
    """
    candidates(request)  # what cannot be had is said before anything is loaded
    target = target_cpu(request.target_cpu)
    if request.is_judged and not is_here(request.target_cpu):
        progress(f"note: quality and speed are measured on this machine, which is not {target.name}")
    if request.handler is not None:
        archive.check_handler_file(request.handler)
    request.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{request.name}-", dir=request.output) as scratch:
        work = Path(scratch)
        with step(progress, f"load {request.source} for {request.task}"):
            source = inputs.load(request, work, progress)
        section = source_section(request, source)
        samples = inputs.sample_inputs(source, request.samples, section)
        data = open_data(request, source)
        material = Material(source, work, target, data.calibration, progress, request.limits, section)
        chosen = choose(request, material, data, section)
        section = handler_section(request, section, chosen.engine)
        with torch_threads_kept(), step(progress, f"check against the source on {len(samples)} samples"):
            session, calls = Opener(request, source, section)(chosen.engine)
            tolerance = request.tolerance
            if tolerance is None and chosen.trials and chosen.method.precision != "fp32":
                tolerance = check.JUDGED_TOLERANCE
            result = check.check_build(source, session, calls, samples, chosen.method.precision, tolerance)
            latency = check.latency_table(session, calls, source)
        progress(
            f"  relative error {result.relative_error:.2g}, mean cosine {result.mean_cosine:.5f}, latency ms {latency}"
        )
        with step(progress, "archive"):
            mar = _archive(request, source, chosen.engine, section, work)
        verified = _verify(request, source, section, chosen.method.precision, mar, work, progress)
        details = details_of(request, source, data, chosen, section) | {
            "check": result.as_dict(),
            "size_bytes": mar.stat().st_size,
            "load_seconds": verified.trip.load_seconds,
            "verified": {
                "requests": verified.num_requests,
                "largest_distance": verified.largest_distance,
                "longest": verified.longest,
            },
        }
        report = BuildReport(request.name, request.version, request.weight, verified.trip.rss_mb, latency, details)
        finished = _publish(request, mar, report, work)
    progress(f"made {finished} ({finished.stat().st_size / 2**20:.1f} MiB) and {request.name}.build.json")
    return finished


def _archive(
    request: BuildRequest, source: ModelSource, engine: Engine, section: Mapping[str, Any], work: Path
) -> Path:
    folder = work / "files"
    folder.mkdir()
    return archive.pack(
        work / f"{request.name}.mar",
        name=request.name,
        version=request.version,
        serialized_file=engine.serialized_file,
        handler_file=request.handler or archive.write_shim(request.task, folder),
        config_file=archive.write_model_config(
            section,
            folder,
            response_timeout_s=request.response_timeout_s,
            startup_timeout_s=request.startup_timeout_s,
        ),
        extra_files=[
            *engine.extra_files,
            *source.write_files(folder),
            *archive.write_labels(source, folder),
        ],
        model_file=engine.model_file,
    )


def _verify(
    request: BuildRequest,
    source: ModelSource,
    section: Mapping[str, Any],
    precision: str,
    mar: Path,
    work: Path,
    progress: Progress,
) -> Verified:
    """Compare the archive with the source in a fresh process; of a team's own handler see only that it answers."""
    config = None
    if request.handler is None:
        config = load_config({"handler": section}, TASKS[request.task].output_config)
        if isinstance(source, Source):
            is_paired = source.is_pair or source.task == "text-classification"
            compare_tokenizers(source.tokenizer, work / "files", config.tokenizer, pairs=is_paired)
    with step(progress, "load it in a fresh process, and compare its answers with the source's"), torch_threads_kept():
        verified = verify(
            mar,
            source,
            config,
            precision,
            inputs.sample_request(request),
            timeout_s=request.startup_timeout_s,
            progress=progress,
        )
    if verified.num_requests:
        progress(
            f"  {verified.num_requests} requests of up to {verified.longest} tokens or pixels; answers differ by up to "
            f"{verified.largest_distance:.2g}"
        )
    return verified


def _publish(request: BuildRequest, mar: Path, report: BuildReport, work: Path) -> Path:
    """Move both files into the model store, the archive last; return it there."""
    report_file = work / f"{request.name}{SUFFIX}"
    report.write(report_file)
    finished = request.output / mar.name
    if finished.exists() and not request.force:
        raise OperatorError(f"{finished} was made meanwhile by another build; replace it with --force")
    report_file.replace(request.output / report_file.name)
    mar.replace(finished)
    return finished
