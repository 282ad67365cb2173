"""Files of somebody else's are read, or refused in one line, whatever is in them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.operate import properties
from ts_handlers.reading import MAX_BYTES, parse_json, parse_yaml

NESTED = "[" * 200_000
BOMB = "\n".join(
    ["a: &a [x]", *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True))]
)
ABSURD = {
    "nested": NESTED,
    "a number of 401 digits": f'{{"a": 1{"0" * 400}}}',
    "a number of 9999 digits": f'{{"a": 1{"0" * 9998}}}',
    "a float past all": '{"a": 1e400}',
    "no number": '{"a": [NaN]}',
    "no JSON": "{",
}


@pytest.mark.parametrize("text", ABSURD.values(), ids=ABSURD)
def test_absurd_json_is_a_value_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="^.*$") as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [NESTED, BOMB, f"a: 1{'0' * 400}", "a: .inf", "a: !!python/object:os.system []", "a: [", "? [a]\n: b\n"]
)
def test_absurd_yaml_is_a_value_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="^.*$") as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_usual_files_are_read() -> None:
    assert parse_json('{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    assert parse_yaml("a: &a {b: 1}\nc: *a\n") == {"a": {"b": 1}, "c": {"b": 1}}
    assert parse_yaml("") is None


def test_what_is_too_large_is_not_parsed() -> None:
    with pytest.raises(ValueError, match="longer than 20000000 characters"):
        parse_json(" " * (MAX_BYTES + 1))


def write_mar(folder: Path, manifest: str, config: str = "minWorkers: 1\n") -> None:
    with zipfile.ZipFile(folder / "m.mar", "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", manifest)
        mar.writestr("model-config.yaml", config)
        mar.writestr("handler.py", "class Handler: ...\n")


MODEL = {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py", "configFile": "model-config.yaml"}


@pytest.mark.parametrize("text", [NESTED, BOMB, f"a: 1{'0' * 400}"], ids=["nested", "bomb", "digits"])
def test_configure_says_which_file_it_is(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}), text)
    assert main(["configure", str(tmp_path)]) == 2
    assert "its model-config.yaml is not YAML" in capsys.readouterr().err
    write_mar(tmp_path, NESTED)
    assert main(["configure", str(tmp_path)]) == 2
    assert "MANIFEST.json is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["../../etc", "a b", "1..0", "", "1/0", "1\n0"])
def test_a_version_is_checked_as_a_name_is(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": {**MODEL, "modelVersion": version}}))
    assert main(["configure", str(tmp_path)]) == 2
    assert f"modelVersion is {version!r}" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["rss_mb", "weight"])
@pytest.mark.parametrize("value", [f"1{'0' * 400}", "1e400", NESTED])
def test_a_build_report_with_absurd_numbers(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}))
    (tmp_path / "m.build.json").write_text(f'{{"name": "m", "{key}": {value}}}', encoding="utf-8")
    assert main(["configure", str(tmp_path)]) == 2
    assert "m.build.json is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    "models", [NESTED, f'{{"m": {{"1.0": {{"minWorkers": 1{"0" * 400}}}}}}}', '{"m": {"1.0": {"minWorkers": 1e400}}}']
)
def test_models_of_a_configuration(models: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.properties"
    file.write_text(f"models={models}\n", encoding="utf-8")
    assert main(["serve", str(tmp_path)]) == 2
    assert "models= cannot be read" in capsys.readouterr().err
    assert main(["configure", "--check", str(file)]) in (0, 1, 2)  # and not a traceback


def test_a_setting_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build = ["build", "x", "--task", "text-classification", "--name", "m", "--output", str(tmp_path)]
    for value in (NESTED, f"1{'0' * 400}", ".inf"):
        assert main([*build, "--set", f"output.top_k={value}"]) == 2
        assert "the value is no YAML" in capsys.readouterr().err


def test_a_check_of_many_lines_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.properties"
    file.write_text("".join(f"inference_adress_{number}=x\n" for number in range(50_000)), encoding="utf-8")
    assert main(["configure", "--check", str(file)]) == 1
    said = capsys.readouterr().out
    assert "more than 50 that are none of TorchServe's" in said
    assert said.count("inference_adress") == 50
    file.write_bytes(b"a=b\n" * (properties.MAX_BYTES // 4 + 1))
    assert main(["configure", "--check", str(file)]) == 2
    assert "which no config.properties has" in capsys.readouterr().err


def test_the_number_that_transformers_writes_for_no_limit_is_one() -> None:
    assert parse_json('{"model_max_length": 1000000000000000019884624838656}')["model_max_length"] > 1e29
