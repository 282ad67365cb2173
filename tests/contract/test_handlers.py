"""Properties that hold for every task, whatever runs the model."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ts_handlers
from tests.contract.engines import ENGINES, ENGINES_BY_KIND
from tests.model_dirs import KINDS, TASK_OF, TINY_KINDS, serialized_file
from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.build.engine import Method
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.config.tasks import TASKS
from ts_handlers.machine import CpuShare
from ts_handlers.testing import Raw, load_handler, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

CLOSE = 1e-4
"""How far the padding and the neighbours of a sequence may move its numbers."""

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make(model_dirs: ModelDirs) -> Make:
    """Load the handler of a kind, with settings over the archive's own."""
    import yaml

    def make_handler(kind: str, engine: Method = ENGINES[0], **sections: Any) -> Any:
        folder = model_dirs.get(
            kind,
            backend=engine.backend,
            precision=engine.precision,
            quantizer=engine.quantizer,
            form=engine.form,
        )
        config = yaml.safe_load((folder / "model-config.yaml").read_text())
        config["handler"]["warmup"] = {"enabled": False}
        for name, section in sections.items():
            config["handler"][name] = {**config["handler"].get(name, {}), **section}
        handler_class = getattr(ts_handlers, TASKS[TASK_OF[kind]].handler)
        return load_handler(handler_class, folder, config, serialized_file=serialized_file(folder))

    return make_handler


def payload(kind: str, text: str) -> Any:
    return {"question": "Who went where?", "context": text} if "answers" in kind else text


def numbers(value: Any) -> list[float]:
    """Return every score and vector entry of a prediction, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) if key not in ("start", "end") for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, float) else []


def assert_close(actual: Any, expected: Any) -> None:
    """Compare predictions: numbers within `CLOSE`, everything else equal."""
    assert _without_numbers(actual) == _without_numbers(expected)
    np.testing.assert_allclose(numbers(actual), numbers(expected), atol=CLOSE)


def _without_numbers(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True), parse_float=lambda _: 0.0)


def check_order(handler: Any, rows: list[Any]) -> None:
    """Compare the answers of rows sent alone with those of the same rows shuffled, and of all of them in one row."""
    expected = [predict(handler, row)[0].json() for row in rows]
    order = list(range(len(rows)))
    random.Random(3).shuffle(order)  # noqa: S311  # a fixed order, not a secret
    shuffled = predict(handler, *(rows[index] for index in order))
    together = predict(handler, rows)[0].json()
    assert [response.status for response in shuffled] == [200] * len(rows)
    assert len(together) == len(rows)
    for position, index in enumerate(order):
        assert_close(shuffled[position].json(), expected[index])
        assert_close(together[index], expected[index])


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_same_alone_shuffled_and_together(kind: str, make: Make, texts: list[str]) -> None:
    check_order(make(kind), [payload(kind, text) for text in texts])


@pytest.mark.parametrize(("kind", "engine"), ENGINES_BY_KIND)
def test_every_engine_answers_in_order(kind: str, engine: Method, make: Make, texts: list[str]) -> None:
    # INT8 scales the activations of a call together, and bf16 rounds sums by their order: one sequence a call here
    handler = make(kind, engine, bucketing={"max_batch_size": 1})
    check_order(handler, [payload(kind, text) for text in texts if len(text) < 100])


@pytest.mark.parametrize(
    "bucketing",
    [
        {"boundaries": [16, 32, 128, 256]},
        {"max_batch_size": 1},
        {"max_batch_size": 64, "call_overhead_tokens": 10_000, "max_padded_tokens": 100_000},
        {"max_padded_tokens": 64},
        {"boundaries": [16, 32, 128, 256], "group_sizes": [1, 4, 8]},
    ],
    ids=["boundaries", "one by one", "all in one call", "few tokens", "filled groups"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bucketed_equals_unbucketed(kind: str, bucketing: dict[str, Any], make: Make, texts: list[str]) -> None:
    rows = [payload(kind, text) for text in texts[::2]]
    plain, bucketed = make(kind), make(kind, bucketing=bucketing)
    for expected, actual in zip(predict(plain, *rows), predict(bucketed, *rows), strict=True):
        assert_close(actual.json(), expected.json())


BAD_ROWS: dict[str, tuple[Any, int, str]] = {
    "not UTF-8": (b"\xff\xfe", 400, "invalid_utf8"),
    "empty": (b"", 400, "empty_request"),
    "nothing at all": (Raw({}), 400, "empty_request"),
    "a number": (7, 400, "invalid_type"),
    "a list of numbers": ([1, 2], 400, "invalid_type"),
    "an empty list": ([], 400, "empty_request"),
    "another object": ({"txt": "x"}, 400, "invalid_type"),
    "an object with a strange key": ({"\ud800": "x"}, 400, "invalid_type"),
    "broken JSON": (Raw({"body": b"{"}, {"body": {"content-type": "application/json"}}), 400, "invalid_json"),
    "too many": (["x"] * 9, 413, "too_many_instances"),
    "an explanation": (Raw({"body": "x"}, {"explain": "True"}), 501, "unsupported"),
    "a v2 tensor of the wrong shape": (
        {"inputs": [{"name": "t", "shape": [3], "datatype": "BYTES", "data": ["x"]}]},
        400,
        "invalid_shape",
    ),
    "a v2 tensor of numbers": (
        {"inputs": [{"name": "t", "shape": [1], "datatype": "FP32", "data": [1]}]},
        400,
        "invalid_type",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_row_gets_its_own_status_and_its_neighbours_are_answered(kind: str, case: str, make: Make) -> None:
    bad, status, code = BAD_ROWS[case]
    handler = make(kind, limits={"max_instances": 8})
    good = payload(kind, "Maria went to Toronto.")
    responses = predict(handler, good, bad, good)
    assert [response.status for response in responses] == [200, status, 200]
    error = responses[1].json()["error"]
    if "v2" in case:
        assert isinstance(error, str)
        assert error
    else:
        assert set(error) == {"code", "message"}
        assert error["code"] == code
        assert error["message"]
    assert responses[0].json() == responses[2].json() == predict(handler, good)[0].json()
    assert {response.content_type for response in responses} == {"application/json"}
    rejected = [item for item in handler.context.metrics.seen if item.name == "ts_handlers_rejected_rows_total"]
    assert [item.dimensions for item in rejected] == [(code, "model", "Model")]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_are_too_long_empty_or_no_unicode(kind: str, make: Make) -> None:
    handler = make(kind, limits={"max_text_length": 50_000}, tokenizer={"max_length": 40})
    cases = [("x" * 50_001, 413, "text_too_long"), ("", 400, "empty_text"), ("\ud800", 400, "invalid_utf8")]
    if "answers" not in kind:  # which reads long contexts window by window
        cases.append(("word " * 200, 413, "text_too_long"))
    for text, status, code in cases:
        response = predict(handler, [payload(kind, "short"), payload(kind, text)])[0]
        assert (response.status, response.json()["error"]["code"]) == (status, code)
        assert response.json()["error"]["message"].startswith("instance 1: ")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("tiny")])
@pytest.mark.parametrize("nothing", [" ", "\u200b", "\x00\x07"])
def test_a_text_of_no_token_is_400_whatever_is_beside_it(kind: str, nothing: str, make: Make) -> None:
    handler = make(kind)
    good = payload(kind, "Maria went to Toronto.")
    rows = [payload(kind, nothing)]
    if "answers" in kind:
        rows.append({"question": nothing, "context": "Maria went to Toronto."})
    if kind == "sentiment":
        rows += [{"text": nothing, "text_pair": "a"}, {"text": "a", "text_pair": nothing}]
    for bad in rows:
        for batch in ([bad], [bad, bad], [good, bad], [bad, good, good]):
            for sent, response in zip(batch, predict(handler, *batch), strict=True):
                assert response.status == (400 if sent is bad else 200)
        assert (
            response_code(predict(handler, bad)[0]) == response_code(predict(handler, [good, bad])[0]) == "empty_text"
        )


def response_code(response: Any) -> str:
    return str(response.json()["error"]["code"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_too_large_is_its_own_413(kind: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    good = payload(kind, "Maria went to Toronto.")
    size = len(predict(make(kind), good)[0].body)
    monkeypatch.setenv("TS_HANDLERS_MAX_RESPONSE_SIZE", str(size + 40))
    handler = make(kind)
    v2 = {
        "inputs": [
            {"name": name, "shape": [9], "datatype": "BYTES", "data": [text] * 9} for name, text in _columns(good)
        ]
    }
    responses = predict(handler, good, [good] * 9, good, v2)
    assert [response.status for response in responses] == [200, 413, 200, 413]
    assert response_code(responses[1]) == "response_too_large"
    assert f"this server sends {size + 40} at most" in responses[3].json()["error"]
    rejected = [item for item in handler.context.metrics.seen if item.name == "ts_handlers_rejected_rows_total"]
    assert {item.dimensions for item in rejected} == {("response_too_large", "model", "Model")}


def _columns(instance: Any) -> Any:
    return instance.items() if isinstance(instance, dict) else [("text", instance)]


@pytest.mark.parametrize("kind", KINDS)
def test_binary_tensors_hold_the_same_predictions(kind: str, make: Make) -> None:
    handler = make(kind)
    good = payload(kind, "Grüße aus Toronto.")
    expected = predict(handler, [good])[0].json()
    raws = [(name, struct.pack("<I", len(text.encode())) + text.encode()) for name, text in _columns(good)]
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
        for name, raw in raws
    ]
    outputs = [{"name": "predictions", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = predict(handler, Raw({"body": head + b"".join(raw for _, raw in raws)}, headers))[0]
    length = int(response.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(response.body[:length])["outputs"]
    raw = response.body[length:]
    assert (len(raw), response.content_type) == (output["parameters"]["binary_data_size"], "application/octet-stream")
    if output["datatype"] == "FP32":
        assert_close([np.frombuffer(raw, "<f4").astype(float).tolist()], expected)
    else:
        assert_close([json.loads(raw[4:])], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_for_too_much_work_is_413(kind: str, make: Make) -> None:
    few = [payload(kind, "word")] * 3
    handler = make(kind, limits={"max_tokens": 40})
    many = [payload(kind, "word")] * 30
    responses = predict(handler, few, many)
    assert [response.status for response in responses] == [200, 413]
    assert responses[1].json()["error"]["code"] == "too_many_tokens"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sentiment"])
def test_pairs_are_for_classification_only(kind: str, make: Make) -> None:
    pair = {"text": "a", "text_pair": "b"}
    assert predict(make(kind), pair)[0].status == 400
    assert predict(make("sentiment"), pair)[0].status == 200


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_int8_answers_stay_close_whatever_shares_their_call(kind: str, make: Make, texts: list[str]) -> None:
    handler = make(kind, find_method("onnx", "int8", None))
    inputs = [handler.transform(handler.decode(payload(kind, text)))[0] for text in texts if len(text) < 100]
    calls, session = handler.calls, handler.session
    plans = calls.plan(session, inputs)
    together = [outputs for plan in plans for outputs in calls.run_call(session, inputs, plan)]
    order = [index for plan in plans for index in plan.indices]
    alone = [calls.run_call(session, [inputs[index]], BatchPlan((0,), inputs[index].length))[0] for index in order]
    for name in alone[0]:
        usual = np.median([np.linalg.norm(outputs[name]) for outputs in alone])  # a few logits are next to nothing
        for index, one, other in zip(order, together, alone, strict=True):
            assert one[name].shape == other[name].shape
            assert np.linalg.norm(one[name] - other[name]) / usual < 0.5, (kind, name, index)


@pytest.mark.parametrize("kind", KINDS)
def test_kserve_answers_hold_the_same_predictions(kind: str, make: Make) -> None:
    handler = make(kind)
    contexts = ["Maria went to Toronto.", "Nobody knew."]
    plain = [predict(handler, payload(kind, text))[0].json() for text in contexts]
    v1 = predict(handler, {"instances": [payload(kind, text) for text in contexts]})[0].json()
    assert_close(v1["predictions"], plain)
    columns = {"context": contexts, "question": ["Who went where?"] * 2} if "answers" in kind else {"text": contexts}
    tensors = [{"name": name, "shape": [2], "datatype": "BYTES", "data": data} for name, data in columns.items()]
    v2 = predict(handler, {"id": "x1", "inputs": tensors})[0].json()
    assert (v2["id"], v2["model_name"]) == ("x1", "model")
    output = v2["outputs"][0]
    if output["datatype"] == "FP32":
        assert_close([list(map(float, row)) for row in np.reshape(output["data"], output["shape"])], plain)
    else:
        assert_close([json.loads(item) for item in output["data"]], plain)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_guilty_row_fails_when_the_model_does(kind: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    handler = make(kind)
    session = handler.session
    poison = "secret poison words that nobody else sends"
    poisoned = handler.transform(handler.decode(payload(kind, poison)))[0].length

    class Poisoned:
        max_parallel, runs_on_device = session.max_parallel, False

        def run(self, arrays: dict[str, Any], *, num_parallel: int = 1) -> Any:
            if (arrays["attention_mask"].sum(axis=1) == poisoned).any():
                raise RuntimeError(f"cannot run {poison}")
            return session.run(arrays, num_parallel=num_parallel)

        def change_threads(self, share: CpuShare) -> None:
            raise AssertionError(share)

        def describe(self) -> str:
            return "poisoned"

    handler.session = Poisoned()
    good = payload(kind, "fine")
    responses = predict(handler, good, payload(kind, poison), good)
    assert [response.status for response in responses] == [200, 500, 200]
    assert responses[1].json()["error"]["code"] == "inference_failed"
    assert "secret" not in caplog.text + responses[1].body.decode()
    assert "the model run failed with RuntimeError" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_there_is_no_memory_for_is_507_and_its_neighbours_are_answered(kind: str, make: Make) -> None:
    handler = make(kind)
    session = handler.session
    limit = handler.transform(handler.decode(payload(kind, "word " * 50)))[0].length

    class Small:
        max_parallel, runs_on_device = session.max_parallel, False

        def run(self, arrays: dict[str, Any], *, num_parallel: int = 1) -> Any:
            if arrays["input_ids"].shape[1] >= limit:
                raise MemoryError
            return session.run(arrays, num_parallel=num_parallel)

    handler.session = Small()
    responses = predict(handler, payload(kind, "fine"), payload(kind, "word " * 50))
    assert [response.status for response in responses] == [200, 507]
    assert responses[1].json()["error"]["code"] == "out_of_memory"


@pytest.mark.parametrize("kind", KINDS)
def test_describe_is_answered_row_by_row(kind: str, make: Make) -> None:
    handler = make(kind)
    described, answered = predict(handler, Raw({}, {"describe": "True"}), payload(kind, "fine"))
    assert described.json()["task"] == TASK_OF[kind]
    assert described.json()["threads"] >= 1
    assert answered.status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_a_batch(kind: str, make: Make) -> None:
    handler = make(kind)
    predict(handler, *[payload(kind, text) for text in ("one", "two words", "three more words")])
    metrics = handler.context.metrics
    stages = [metrics.values(f"ts_handlers_{stage}_seconds") for stage in ("decode", "transform", "run", "format")]
    assert [len(values) for values in stages] == [1] * 4
    assert 0 < sum(values[0] for values in stages) <= metrics.values("ts_handlers_batch_seconds")[0]
    assert metrics.values("ts_handlers_batch_fill_ratio") == [3 / 8]
    assert 0 <= metrics.values("ts_handlers_padded_token_ratio")[0] < 1
    assert len(metrics.values("HandlerTime")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_request_stays_on_the_handler(kind: str, make: Make) -> None:
    handler = make(kind)
    predict(handler, payload(kind, "first"))
    before = {name: id(value) for name, value in vars(handler).items()}
    predict(handler, payload(kind, "second"), b"\xff")
    assert {name: id(value) for name, value in vars(handler).items()} == before


def test_request_texts_are_not_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    handler = make("sentiment")
    predict(handler, "a very private sentence", b"private\xff", {"private": 1})
    assert "private" not in caplog.text
