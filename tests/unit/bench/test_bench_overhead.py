from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.attribution import (
    CLIENT,
    FORMAT,
    HOOKS,
    IDLE,
    JAVA,
    MODEL_RUN,
    WORKER_REST,
    InProcessBlock,
    Round,
    ServedBlock,
    in_process_parts_ms,
    largest,
    median_parts,
    served_parts_ms,
)
from bench.inprocess import InProcess, load_archive
from bench.overhead_report import overhead_json, overhead_text
from bench.process import BenchError, tree
from bench.prometheus import parse_samples, total
from bench.schedstat import ENDED, CpuTime, process_names, read_cpu_time, thread_group

METRICS = """\
# HELP ts_handlers_run_seconds Torchserve prometheus metric with unit: s
# TYPE ts_handlers_run_seconds histogram
ts_handlers_run_seconds_bucket{ModelName="m",Level="Model",Hostname="a",le="+Inf",} 4.0
ts_handlers_run_seconds_sum{ModelName="m",Level="Model",Hostname="a",} 1.5
ts_handlers_run_seconds_sum{ModelName="n",Level="Model",Hostname="a",} 0.25

ts_inference_requests_total{model_name="m",model_version="default",hostname="a",} 4.0 1700000000000
odd{path="C:\\\\new \\"x\\" {y}",line="a\\nb"} NaN
up 1
"""


def in_process(mode: str, rate: float) -> InProcessBlock:
    return InProcessBlock(mode, num_payloads=1000, payloads_per_second=rate, hooks_s=0.5, run_s=4.5, cpu_s=5.0)


def served(rate: float = 320.0, **changes: object) -> ServedBlock:
    values: dict[str, object] = {
        "requests_per_second": rate,
        "p99_ms": 60.0,
        "num_errors": 0,
        "num_requests": 1000.0,
        "java_s": 0.6,
        "java_threads_s": {"epollEventLoopG": 0.4, "W": 0.15, "C2 CompilerThre": 0.05},
        "worker_s": 5.0,
        "worker_waiting_s": 0.0,
        "stages_s": {"decode": 0.05, "transform": 0.15, "run": 4.0, "format": 0.1},
        "client_ms": 0.35,
    }
    return ServedBlock(**(values | changes))  # type: ignore[arg-type]  # the fields above


def test_samples_are_read_with_labels_escapes_and_timestamps() -> None:
    samples = parse_samples(METRICS)
    assert len(samples) == 6
    assert total(samples, "ts_handlers_run_seconds_sum") == 1.75
    assert total(samples, "ts_inference_requests_total") == 4.0
    assert total(samples, "up") == 1.0
    assert total(samples, "never_seen") == 0.0
    odd = next(sample for sample in samples if sample.name == "odd")
    assert dict(odd.labels) == {"path": 'C:\\new "x" {y}', "line": "a\nb"}


def test_what_is_no_metrics_page_is_refused() -> None:
    with pytest.raises(BenchError, match="no line of Prometheus"):
        parse_samples("<html>not here</html>")


def test_the_parts_of_a_request_make_up_the_whole() -> None:
    parts = served_parts_ms(served(), num_cpus=2.0)
    assert parts == {
        MODEL_RUN: pytest.approx(4.0),
        HOOKS: pytest.approx(0.2),
        FORMAT: pytest.approx(0.1),
        WORKER_REST: pytest.approx(0.7),
        JAVA: pytest.approx(0.6),
        CLIENT: 0.35,
        IDLE: pytest.approx(0.3),
    }
    assert sum(parts.values()) == pytest.approx(2000.0 / 320.0)


def test_waiting_for_a_cpu_is_taken_out_of_the_stages() -> None:
    stages = {"decode": 0.0, "transform": 0.0, "run": 8.0, "format": 0.0}
    parts = served_parts_ms(served(worker_s=5.0, worker_waiting_s=5.0, stages_s=stages), num_cpus=2.0)
    assert parts[MODEL_RUN] == pytest.approx(4.0)
    assert parts[WORKER_REST] == pytest.approx(1.0)


@pytest.mark.parametrize("changes", [{"num_requests": 0.0}, {"rate": 0.0}])
def test_a_server_that_answered_nothing_has_no_parts(changes: dict[str, float]) -> None:
    assert served_parts_ms(served(**changes), num_cpus=2.0) == {}


def test_a_worker_without_cpu_time_has_idle_time_only() -> None:
    nothing = dict.fromkeys(("decode", "transform", "run", "format"), 0.0)
    parts = served_parts_ms(served(worker_s=0.0, stages_s=nothing, java_s=0.0, client_ms=0.0), num_cpus=2.0)
    assert {name for name, value in parts.items() if value} == {IDLE}


def test_in_process_there_is_the_model_the_hooks_and_what_was_left_idle() -> None:
    parts = in_process_parts_ms(in_process("one", 400.0), num_cpus=2.0)
    assert parts == {MODEL_RUN: pytest.approx(4.5), HOOKS: pytest.approx(0.5), IDLE: pytest.approx(0.0)}
    disturbed = InProcessBlock("one", 1000, 200.0, hooks_s=1.0, run_s=9.0, cpu_s=5.0)
    assert in_process_parts_ms(disturbed, num_cpus=2.0) == {
        MODEL_RUN: pytest.approx(4.5),
        HOOKS: pytest.approx(0.5),
        IDLE: pytest.approx(5.0),
    }
    assert in_process_parts_ms(InProcessBlock("one", 0, 0.0, 0.0, 0.0, 0.0), num_cpus=2.0) == {}


def test_the_ratio_is_taken_to_the_faster_way_in_process() -> None:
    item = Round((in_process("one", 380.0), in_process("groups", 400.0)), served(rate=320.0))
    assert item.limit.mode == "groups"
    assert item.ratio == pytest.approx(0.8)


def test_medians_are_taken_part_by_part() -> None:
    assert median_parts([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0, "b": 7.0}]) == {"a": 2.0, "b": 6.0}


def test_the_largest_threads_come_first() -> None:
    assert largest({"a": 0.1, "b": 0.4, "c": 0.2}, 100.0, count=2) == [("b", 4.0), ("c", 2.0)]
    assert largest({"a": 0.1}, 0.0) == []


def test_the_report_has_rounds_median_and_parts() -> None:
    rounds = [
        Round((in_process("one", 380.0), in_process("groups", 400.0)), served(rate=rate, p99_ms=p99_ms))
        for rate, p99_ms in ((320.0, 60.0), (300.0, None), (340.0, 60.0))
    ]
    text = overhead_text("minilm", rounds, num_cpus=2.0)
    assert "TorchServe gives 80.0% of the limit in process" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["2", "380.0", "400.0", "300.0", "-", "0", "75.0%"] in rows
    assert [JAVA, "0.600", "-"] in rows
    assert [MODEL_RUN, "4.000", "4.500"] in rows
    assert "epollEventLoopG 0.400, W 0.150, C2 CompilerThre 0.050" in text
    written = json.loads(json.dumps(overhead_json(rounds, num_cpus=2.0)))
    assert written["median_ratio"] == pytest.approx(0.8)
    assert written["rounds"][2]["ratio"] == pytest.approx(0.85)
    assert written["served_parts_ms"][JAVA] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("epollEventLoopG-3-1", "epollEventLoopG"),
        ("W-9000-minilm_1", "W"),
        ("C2 CompilerThre", "C2 CompilerThre"),
        ("GC Thread#0", "GC Thread"),
        ("-1", "-1"),
    ],
)
def test_threads_of_one_kind_share_a_name(name: str, group: str) -> None:
    assert thread_group(name) == group


BUSY = """
import os, sys, threading, time
def work():
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
while len(os.listdir("/proc/self/task")) > 1:  # join returns while the kernel's thread is still on its way out
    time.sleep(0.01)
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def busy_process() -> Iterator[subprocess.Popen[str]]:
    """A process that has used its CPU time in a thread that is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield process


def test_cpu_time_of_threads_that_ended_is_counted_too() -> None:
    with busy_process() as process:
        stats = [stat for stat in tree(process.pid) if stat.pid == process.pid]
        used = read_cpu_time(stats).since(CpuTime())
        (name,) = process_names([process.pid]).values()
        process.communicate()
    assert used.running_s >= 0.25
    assert used.threads_s[ENDED] >= 0.2
    assert used.threads_s[name] < used.running_s
    assert used.waiting_s >= 0.0
    assert read_cpu_time(stats).threads_s == {}
    assert process_names([process.pid]) == {}


def test_a_difference_is_taken_thread_by_thread() -> None:
    earlier = CpuTime(1.0, 0.5, {"a": 0.6, "b": 0.4})
    later = CpuTime(3.0, 0.75, {"a": 1.6, "c": 0.5})
    assert later.since(earlier) == CpuTime(2.0, 0.25, {"a": 1.0, "c": 0.5, ENDED: 0.5})


def test_a_kernel_without_the_figures_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="CONFIG_SCHED_INFO"):
        read_cpu_time([], proc=tmp_path)


HANDLER = """
import numpy as np
from ts_handlers import InferenceHandler, ModelInput


class CountingHandler(InferenceHandler):
    \"\"\"Embeds a text as its length, with a session that sleeps: what is tested is the loop around it.\"\"\"

    def open_session(self, files):
        return SESSION

    def transform(self, example):
        return [ModelInput({"x": np.ones(len(example), dtype=np.int64)}, len(example))]


def _session():
    import types
    return types.SimpleNamespace(run=lambda arrays: {}, describe=lambda: "nothing", max_parallel=1, frees_cpu=False)


SESSION = _session()
"""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "m", "handler": "counting_handler.py", "serializedFile": "none"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "counting_handler.py").write_text(HANDLER)
    return folder


@pytest.mark.parametrize("mode", ["one", "groups"])
def test_the_processes_work_through_the_payloads_and_end(model_dir: Path, tmp_path: Path, mode: str) -> None:
    payloads = tmp_path / "payloads.txt"
    payloads.write_text("a\nbb\nccc\n")
    with InProcess(model_dir, payloads, 2, log=tmp_path / "log") as processes:
        pids = [process.pid for process in processes._processes]
        block = processes.block(mode, 0.2)
    assert block.mode == mode
    assert block.num_payloads > 100
    assert block.payloads_per_second * 0.2 == pytest.approx(block.num_payloads, rel=0.5)
    assert 0.0 < block.hooks_s + block.run_s <= 2 * 10.0
    deadline = time.monotonic() + 10.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_process_that_fails_names_its_log(model_dir: Path, tmp_path: Path) -> None:
    payloads = tmp_path / "payloads.txt"
    payloads.write_text("a\n")
    (model_dir / "counting_handler.py").write_text("raise RuntimeError('the reason')")
    log = tmp_path / "log"
    with pytest.raises(BenchError, match="see .*log"), InProcess(model_dir, payloads, 1, log=log):
        pass
    assert "the reason" in log.read_text()


def test_an_archive_with_two_classes_is_refused(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_dir / "counting_handler.py").write_text("class A: pass\nclass B: pass\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with pytest.raises(BenchError, match="2 classes"):
        load_archive(model_dir)
