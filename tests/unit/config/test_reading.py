"""Files of somebody else's are read, or refused in one line, whatever is in them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.config.reading import MAX_BYTES, load_json, load_yaml, parse_json, parse_yaml
from ts_handlers.operate.torchserve import properties

NESTED = "[" * 200_000
BOMB = "\n".join(
    ["a: &a [x]", *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True))]
)
WIDE = f"a: &a [{'*a, ' * 3000}]"
MERGES = "\n".join(
    [
        "a: &a {k: 1, l: 2}",
        *(f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    ]
)
ABSURD = {
    "deep": "[" * 150 + "]" * 150,
    "half of a character": '{"a": ["\\ud800"]}',
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
    "text",
    [
        *(NESTED, BOMB, WIDE, MERGES, ABSURD["deep"], "a: &a {<<: *a}", 'a: "\\ud800"'),
        *(f"a: 1{'0' * 400}", "a: 1" + ":59" * 100_000, "a: .inf", "a: !!int ''", "a: !!bool x", "a: !!timestamp x"),
        *("a: !!python/object:os.system []", "a: [", "? [a]\n: b\n", "a: 2001-99-99"),
    ],
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


def test_a_file_is_read_to_its_limit_only(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(2**40)  # nothing of it is on the disk
    for read in (load_json, load_yaml):
        with pytest.raises(ValueError, match="which are read at most"):
            read(file)


def test_numbers_of_model_files() -> None:
    text = '{"model_max_length": 1000000000000000019884624838656, "limit": [0.0, Infinity]}'
    assert parse_json(text, any_number=True) == {"model_max_length": int(1e30), "limit": [0.0, float("inf")]}


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


def test_a_manifest_that_unpacks_to_far_more_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w", zipfile.ZIP_DEFLATED) as mar:
        mar.writestr("MAR-INF/MANIFEST.json", " " * (MAX_BYTES + 1))
    assert main(["configure", str(tmp_path)]) == 2
    assert f"has more than {MAX_BYTES} bytes" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["configFile", "requirementsFile"])
def test_names_in_a_manifest_are_texts(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": {**MODEL, key: ["a"]}}))
    assert main(["configure", str(tmp_path)]) == 2
    assert f"{key} is ['a'] (list)" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["modelName", "modelVersion"])
def test_what_an_archive_says_is_shown_on_one_line(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mar(tmp_path, json.dumps({"model": {**MODEL, key: "\x1b[31m\n" * 10_000}}))
    assert main(["configure", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.rstrip("\n").isprintable()
    assert len(error) < 5000


@pytest.mark.parametrize("version", ["../../etc", "a b", "1..0", "", "1/0", "1\n0", "9" * 5000])
def test_a_version_is_checked_as_a_name_is(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": {**MODEL, "modelVersion": version}}))
    assert main(["configure", str(tmp_path)]) == 2
    assert f"modelVersion is {version[:100]!r}"[:-1] in capsys.readouterr().err


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
    ("models", "reason"),
    [
        (NESTED, "models= cannot be read"),
        (f'{{"m": {{"1.0": {{"minWorkers": 1{"0" * 400}}}}}}}', "no minWorkers above 0"),
        ('{"m": {"1.0": {"minWorkers": 1e400}}}', "no minWorkers above 0"),
    ],
)
def test_models_of_a_configuration(
    models: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.properties"
    file.write_text(f"models={models}\n", encoding="utf-8")
    assert main(["serve", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err
    assert main(["configure", "--check", str(file)]) in (0, 1, 2)  # and not a traceback


def test_a_setting_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build = ["build", "x", "--task", "text-classification", "--name", "m", "--output", str(tmp_path)]
    for value in (NESTED, f"1{'0' * 400}", ".inf"):
        assert main([*build, "--set", f"output.top_k={value}"]) == 2
        assert "the value is no YAML" in capsys.readouterr().err


def test_a_check_of_many_lines_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.properties"
    file.write_text("".join(f"inference_adress_{number}=x\n" for number in range(30_000)), encoding="utf-8")
    assert main(["configure", "--check", str(file)]) == 1
    said = capsys.readouterr().out
    assert "more than 200 findings" in said
    assert said.count("inference_adress") == 200
    file.write_bytes(b"a=b\n" * (properties.MAX_BYTES // 4 + 1))
    assert main(["configure", "--check", str(file)]) == 2
    assert "which no config.properties has" in capsys.readouterr().err


def test_the_number_that_transformers_writes_for_no_limit_is_one() -> None:
    assert parse_json('{"model_max_length": 1000000000000000019884624838656}')["model_max_length"] > 1e29


def check(folder: Path, **values: str) -> list[str]:
    """Return the arguments that check a configuration with these lines."""
    file = folder / "config.properties"
    lines = {"model_store": str(folder), "load_models": "all", "models": '{"m": {"1.0": {"minWorkers": 1}}}', **values}
    file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding=properties.ENCODING)
    return ["configure", "--check", str(file)]


def test_a_check_of_many_models_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}))
    assert main(check(tmp_path, load_models="m.mar," * 100_000, allowed_urls="x," * 100_000)) == 1
    said = capsys.readouterr().out
    assert "load_models: 100001 entries" in said
    assert "allowed_urls: very many patterns" in said
    entries = ",".join(f'"minWorker{number}": 1' for number in range(30_000))
    assert main(check(tmp_path, models=f'{{"m": {{"1.0": {{"minWorkers": 1, {entries}}}}}}}')) == 1
    assert "more than 200 findings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blacklist_env_vars", "(" * 50_000),
        ("blacklist_env_vars", "a{99999999999}"),
        ("allowed_urls", "(" * 9_000),
        ("vmargs", f"-Xmx{'9' * 5000}m -XX:ActiveProcessorCount={'9' * 5000}"),
        ("vmargs", "-XX:ActiveProcessorCount=\u00b2"),
        ("inference_address", f"http://127.0.0.1:{'9' * 5000}"),
        ("number_of_gpu", "9" * 5000),
    ],
)
def test_a_check_of_absurd_values_ends_with_findings(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}))
    main(check(tmp_path, **{key: value}))
    captured = capsys.readouterr()
    assert not captured.err
    assert "config.properties: " in captured.out.splitlines()[-1]


@pytest.mark.parametrize("metrics", ["[]", "{gauge: 7}", "{gauge: [7]}", "{gauge: [{name: 7}]}"])
def test_a_check_of_odd_metrics_ends_with_findings(
    metrics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}))
    (tmp_path / "metrics.yaml").write_text(f"model_metrics: {metrics}\n", encoding="utf-8")
    main(check(tmp_path, metrics_config=str(tmp_path / "metrics.yaml")))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("inference_address=http://127.0.0.1:99999", "a port of 1 to 65534"),
        (f"initial_worker_port={'9' * 5000}", "write a port"),
        ("initial_worker_port=65535", "leaves no room for 2 workers"),
        ('models={"m": {"1.0": {"minWorkers": 1e9}}}', "1 to 1024 can be started"),
        ('models={"m": {"1.0": {"minWorkers": 1e400}}}', "no minWorkers above 0"),
    ],
)
def test_numbers_that_no_server_has(line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f'models={{"m": {{"1.0": {{"minWorkers": 2}}}}}}\n{line}\n'
    (tmp_path / "config.properties").write_text(text, encoding="utf-8")
    assert main(["serve", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("interval_s: 1.0e+308", "must be 1e+09 or less"),
        ("budget: {max_cpus: 1.0e+99}", "must be 1e+15 or less"),
        ("metrics: {port: 70000}", "must be 1 to 65535"),
        ("torchserve: {management_url: 'http://a:99999'}", "must be an address"),
        ("torchserve: {management_url: 'http://[a'}", "must be an address"),
    ],
)
def test_numbers_of_the_autoscaler(line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "autoscale.yaml"
    file.write_text(f"models: {{m: {{max_workers: 2}}}}\n{line}\n", encoding="utf-8")
    assert main(["autoscale", "--config", str(file)]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("value", ["hunter\\.2", "hunter-\\\nother_key=1", "hunter2\\u12"])
def test_a_check_does_not_show_passwords(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mar(tmp_path, json.dumps({"model": MODEL}))
    main(check(tmp_path, keystore_pass=value))
    captured = capsys.readouterr()
    assert "keystore_pass" in captured.out + captured.err
    assert "hunter" not in captured.out + captured.err
