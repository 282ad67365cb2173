"""The build's steps and its refusals; whole builds are in tests/e2e."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ts_handlers.build import archive, check, inputs
from ts_handlers.build.command import parse_settings
from ts_handlers.build.export import count_operators
from ts_handlers.build.samples import SAMPLE_TEXTS, Sample, encode
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.verify import smoke
from ts_handlers.cli import main
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuShare

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs


def build(model_dirs: ModelDirs, store: Path, *options: str, kind: str = "tiny-distilbert", name: str = "m") -> int:
    task = [] if "--task" in options else ["--task", "text-classification"]
    return main(["build", str(model_dirs.checkpoint(kind)), "--name", name, "--output", str(store), *task, *options])


def test_a_build_leaves_an_archive_and_its_report(model_dirs: ModelDirs, tmp_path: Path) -> None:
    assert build(model_dirs, tmp_path, "--precision", "int8", "--set", "output.top_k=1") == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.build.json", "m.mar"]
    report = json.loads((tmp_path / "m.build.json").read_text())
    assert report["precision"] == "int8"
    assert report["quantization"]["method"] == "dynamic"
    assert report["fused_operators"]["Attention"] == 2
    assert report["check"]["relative_error"] < report["check"]["tolerance"]
    assert report["size_bytes"] == (tmp_path / "m.mar").stat().st_size
    assert {"source_sha256", "latency_ms", "rss_mb", "load_seconds", "versions"} <= set(report)
    assert report["handler"]["output"] == {"top_k": 1}


def test_an_archive_is_replaced_only_by_force(
    model_dirs: ModelDirs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.mar").write_bytes(b"old")
    assert build(model_dirs, tmp_path) == 2
    assert "m.mar exists; replace it with --force" in capsys.readouterr().err
    assert build(model_dirs, tmp_path, "--backend", "torch", "--precision", "bf16", "--force") == 0
    assert zipfile.is_zipfile(tmp_path / "m.mar")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "0"], "the int8 build differs from its source: relative error"),
        (["--tolerance", "nan"], "the int8 build differs from its source: relative error"),
        (["--set", "output.top_k=2024-99-99"], "the value is no YAML"),
        (["--set", "runtime={target_cpu: amx}"], "runtime.target_cpu is no setting of its own here; use --target-cpu"),
        (["--set", "runtime.precision=int8"], "runtime.precision is no setting of its own here; use --precision"),
        (["--version", "1 0"], "--version '1 0': use letters"),
        (["--set", "output.topk=1"], "handler.output.topk is no setting; did you mean top_k?"),
        (["--set", "output.top_k"], "write KEY=VALUE"),
        (["--set", "a=[1"], "the value is no YAML"),
        (["--set", "a=1", "--set", "a.b=2"], "a is a value already"),
        (["--backend", "ipex"], "--backend ipex has no int8; it has fp32, bf16"),
        (["--handler", "gone.py"], "gone.py is no Python file"),
        (["--samples", "gone.txt"], "gone.txt cannot be read"),
        (["--sample-request", "gone.json"], "--sample-request gone.json cannot be read"),
        (
            ["--task", "question-answering"],
            "lacks weights of DistilBertForQuestionAnswering: qa_outputs.bias, qa_outputs.weight",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    options: list[str], message: str, model_dirs: ModelDirs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(model_dirs, tmp_path, "--precision", "int8", *options) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert message in errors[-1]
    assert errors[-1].startswith("ts-handlers build: error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../m", "a b", "", ".m", "m/n"])
def test_a_name_that_is_no_file_name(name: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    assert build(model_dirs, tmp_path, name=name) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at-all", "there is no folder nowhere/at-all, and no such model"),
        (".", "has no config.json"),
    ],
)
def test_a_source_that_is_none(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["build", source, "--task", "feature-extraction", "--name", "m", "--output", str(tmp_path / "store")]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_a_team_handler_must_answer_the_sample_request(
    model_dirs: ModelDirs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = tmp_path / "shouting.py"
    handler.write_text(
        "from ts_handlers import RequestError, TextClassificationHandler\n\n\n"
        "class Shouting(TextClassificationHandler):\n"
        "    def decode(self, instance):\n"
        "        if not isinstance(instance, dict):\n"
        "            raise RequestError('send an object')\n"
        "        return super().decode(instance['shout'])\n",
        encoding="utf-8",
    )
    store = tmp_path / "store"
    assert build(model_dirs, store, "--handler", str(handler)) == 2
    assert "answers a sample request with 400: " in (error := capsys.readouterr().err)
    assert "--sample-request" in error
    request = tmp_path / "request.json"
    request.write_text('{"shout": "HELLO"}', encoding="utf-8")
    assert build(model_dirs, store, "--handler", str(handler), "--sample-request", str(request)) == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("x = 1", "must define exactly one class, as TorchServe wants; it defines none"),
        ("class A: ...\nclass B: ...", "it defines A, B"),
        (
            "class A:\n    def initialize(self, c):\n        raise ValueError('first\\nsecond')",
            "ValueError: first second",
        ),
    ],
)
def test_an_archive_that_does_not_load_is_found_out(
    source: str, message: str, model_dirs: ModelDirs, tmp_path: Path
) -> None:
    files = {file.name: file for file in model_dirs.get("tiny-distilbert").iterdir() if file.is_file()}
    mar = tmp_path / "m.mar"
    manifest = {"model": {"modelName": "m", "handler": "handler.py", "configFile": "model-config.yaml"}}
    with zipfile.ZipFile(mar, "w") as target:
        target.writestr("handler.py", source)
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target.write(files["model-config.yaml"], "model-config.yaml")
    with pytest.raises(OperatorError, match="does not load in a fresh process") as caught:
        smoke.send(mar, [["x"]])
    assert message in str(caught.value)


def test_a_process_that_ends_without_a_word(tmp_path: Path) -> None:
    mar = tmp_path / "m.mar"
    manifest = {"model": {"modelName": "m", "handler": "gone.py:handle", "configFile": "model-config.yaml"}}
    with zipfile.ZipFile(mar, "w") as target:
        target.writestr("gone.py", "import os\n\n\ndef handle(rows, context):\n    os._exit(7)\n")
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target.writestr("model-config.yaml", "{}")
    with pytest.raises(OperatorError, match="ends a fresh process with exit code 7: it said nothing"):
        smoke.send(mar, [["x"]])


def test_a_module_level_handle_is_run_too(tmp_path: Path) -> None:
    mar = tmp_path / "m.mar"
    manifest = {"model": {"modelName": "m", "handler": "echo.py:handle", "configFile": "model-config.yaml"}}
    with zipfile.ZipFile(mar, "w") as target:
        target.writestr(
            "echo.py", "def handle(rows, context):\n    return rows and [row['body'].upper() for row in rows]\n"
        )
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target.writestr("model-config.yaml", "{}")
    trip = smoke.send(mar, [["hello"], ["you", "there"]])
    assert trip.answers == [[(200, "HELLO")], [(200, "YOU"), (200, "THERE")]]
    assert trip.rss_mb > 0


@pytest.mark.parametrize("name", ["utils.py", "launcher.py", "tokenizers.py", "json.py"])
def test_a_handler_file_with_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(OperatorError, match="rename the file"):
        archive.check_handler_file(tmp_path / name)


def test_an_archive_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(OperatorError, match=r"m\.mar cannot be written: .*gone"):
        archive.pack(
            tmp_path / "m.mar",
            name="m",
            version="1.0",
            serialized_file=gone,
            handler_file=gone,
            config_file=gone,
        )


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    model_file = tmp_path / "own" / "handler.py"
    with pytest.raises(OperatorError, match=r"own/handler.py and .*/handler.py would have one name in the archive"):
        archive.pack(
            tmp_path / "m.mar",
            name="m",
            version="1.0",
            serialized_file=tmp_path / "weights.pt",
            handler_file=tmp_path / "handler.py",
            config_file=tmp_path / "model-config.yaml",
            model_file=model_file,
        )


def test_settings_are_nested() -> None:
    pairs = ["a.b=1", "a.c=[x, 2]", "d=true", "e=text"]
    assert parse_settings(pairs) == {"a": {"b": 1, "c": ["x", 2]}, "d": True, "e": "text"}


@pytest.mark.parametrize("kind", ["tiny-distilbert", "tiny-electra", "tiny-roberta", "entities"])
def test_attention_is_fused(kind: str, model_dirs: ModelDirs) -> None:
    operators = count_operators(model_dirs.get(kind) / "model.onnx")
    assert operators["Attention"] == (6 if kind == "entities" else 2)
    assert "SkipLayerNormalization" not in operators


def test_samples_are_cut_where_the_archive_cuts(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = load_source(str(model_dirs.checkpoint("tiny-distilbert")), "text-classification")
    file = tmp_path / "samples.txt"
    file.write_text("one\npositive\ttwo three four\n\n", encoding="utf-8")
    found = inputs.sample_inputs(source, file, {"tokenizer": {"max_length": 4}})
    expected = [
        source.tokenizer(text, truncation=True, max_length=4)["input_ids"] for text in ("one", "two three four")
    ]
    assert [item.arrays["input_ids"].tolist() for item in found] == expected
    assert len(inputs.sample_inputs(source, None, {})) == len(SAMPLE_TEXTS)


def test_a_model_that_returns_no_numbers_fails_the_check(model_dirs: ModelDirs) -> None:
    source = load_source(str(model_dirs.checkpoint("tiny-distilbert")), "text-classification")

    class Broken:
        max_parallel = 1
        runs_on_device = False

        def run(self, arrays: Any, *, num_parallel: int = 1) -> Any:
            del num_parallel
            return {"logits": np.full((len(arrays["input_ids"]), 2), np.nan)}

        def change_threads(self, share: CpuShare) -> None:
            del share

        def describe(self) -> str:
            return "broken"

    samples = [encode(source, Sample("text"))]
    with pytest.raises(OperatorError, match="not finite"):
        check.check_build(source, Broken(), source.calls(BucketingConfig()), samples, "fp32", None)


def test_labels_that_do_not_match_the_model(model_dirs: ModelDirs, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(model_dirs.checkpoint("tiny-distilbert"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "no", "5": "yes"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(OperatorError, match="names the labels 0, 5 .*name 0 to 1"):
        load_source(str(folder), "text-classification")
    config["id2label"] = {"0": "same", "1": "same"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(OperatorError, match="gives two labels one name"):
        load_source(str(folder), "text-classification")


def test_a_folder_without_a_tokenizer_is_refused(model_dirs: ModelDirs, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(model_dirs.checkpoint("tiny-distilbert"), folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(OperatorError, match="has no tokenizer"):
        load_source(str(folder), "text-classification")


def test_a_corrupt_checkpoint_is_one_clear_error(model_dirs: ModelDirs, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(model_dirs.checkpoint("tiny-distilbert"), folder)
    (folder / "model.safetensors").write_bytes(b"corrupt")
    with pytest.raises(OperatorError, match="cannot be loaded for text-classification"):
        load_source(str(folder), "text-classification")
