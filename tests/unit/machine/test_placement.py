"""Placement in real processes: each is a worker of the same parent, this test, and binds itself."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.machine.test_budget import V2_MOUNT, make_root
from ts_handlers.machine.placement.membership import Membership
from ts_handlers.machine.placement.parent import Parent
from ts_handlers.machine.placement.worker import Declared, Placement

WORKER = """
import json, logging, os, sys
from pathlib import Path
options = json.loads(sys.argv[1])
if "start_on" in options:
    os.sched_setaffinity(0, options["start_on"])
from ts_handlers.machine.placement import roster
from ts_handlers.machine.placement import worker as placement
from ts_handlers.machine.placement.worker import Declared, Placement
logging.basicConfig(stream=sys.stdout, format="log %(message)s", level=logging.INFO)
roster.ABSENCE_S = options.get("absence_s", 15)
roster.STARTUP_S = 10**9  # the parent is a test run, which may be minutes old
seconds = 0.0
place = Placement(
    options.get("model", "a 1.0"),
    Declared(options["workers"], "the test", is_of_model="model" in options),
    threads=options.get("threads"),
    is_binding=options.get("is_binding", True),
    root=Path(options.get("root", "/")),
    monotonic=lambda: seconds,
)
def show():
    cpus = sorted({cpu for task in os.listdir("/proc/self/task") for cpu in os.sched_getaffinity(int(task))})
    print(json.dumps({
        "cpus": cpus, "threads": place.place.share.threads, "workers": place.place.share.num_workers,
        "index": place.place.index, "text": place.describe(),
    }), flush=True)
show()
for line in sys.stdin:
    order = json.loads(line)
    if "bind" in order:
        os.sched_setaffinity(0, order["bind"])
    seconds += order.get("seconds", 1)
    place.follow()
    show()
"""

TWO = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a slice needs two CPUs to be cut from")
CPUS = sorted(os.sched_getaffinity(0))


class Worker:
    """One process with a Placement; `told` lets seconds of its clock pass and returns what it then is."""

    def __init__(self, scope: str, options: dict[str, Any]) -> None:
        environ = {**os.environ, "TS_HANDLERS_SCOPE": scope}
        command = [sys.executable, "-c", WORKER, json.dumps(options)]
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.log: list[str] = []
        self.first = self._read()

    def told(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith("log "):
                shown: dict[str, Any] = json.loads(line)
                return shown
            self.log.append(line)
        raise AssertionError("the worker ended: " + "".join(self.log))


Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    scope = f"test-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:

        def started(**options: Any) -> Worker:
            worker = Worker(scope, {"workers": 2, **options})
            stack.enter_context(worker.process)
            stack.callback(worker.process.kill)
            return worker

        yield started


def cpus_of(*shown: dict[str, Any]) -> list[list[int]]:
    return [each["cpus"] for each in shown]


@TWO
def test_two_workers_take_half_the_cpus_each(start: Start) -> None:
    half = len(CPUS) // 2
    first, second = start(), start()
    assert cpus_of(first.first, second.first) == [CPUS[:half], CPUS[half:]]
    assert "place 1 of 2 workers" in first.first["text"]


@TWO
def test_the_same_while_more_come_and_one_is_killed_and_another_stays_away(start: Start) -> None:
    half = len(CPUS) // 2
    workers = [start(absence_s=5) for _ in range(2)]
    more = [start(absence_s=5) for _ in range(2)]
    everyone = [*workers, *more]
    shown = [worker.told() for worker in everyone]
    assert {each["workers"] for each in shown} == {4}
    if len(CPUS) == 2:
        assert cpus_of(*shown) == [CPUS] * 4
    more[0].process.kill()
    more[0].process.wait()
    again = start(absence_s=5)
    assert (again.first["index"], again.first["cpus"]) == (shown[2]["index"], shown[2]["cpus"])
    for worker in (again, more[1]):
        worker.process.kill()
        worker.process.wait()
    assert {worker.told()["workers"] for worker in workers} == {4}
    shown = [worker.told(seconds=5) for worker in workers]
    assert {each["workers"] for each in shown} == {2}
    assert cpus_of(*shown) == [CPUS[:half], CPUS[half:]]
    assert any("now" in line and "before" in line for line in workers[0].log)


@TWO
def test_a_worker_alone_has_everything_once_its_neighbour_is_gone(start: Start) -> None:
    first, second = start(absence_s=2), start()
    first.told()
    second.process.kill()
    second.process.wait()
    first.told(seconds=1)
    shown = first.told(seconds=3)
    assert (shown["cpus"], shown["threads"], shown["workers"]) == (CPUS, len(CPUS), 1)


@TWO
def test_models_declare_workers_of_their_own(start: Start) -> None:
    first = start(model="a 1.0", workers=1)
    second = start(model="b 1.0", workers=1)
    assert (first.first["workers"], second.first["workers"], first.told()["workers"]) == (1, 2, 2)


def test_looking_is_rare(start: Start) -> None:
    first = start(workers=1)
    start(workers=1)
    assert first.told(seconds=0.5)["workers"] == 1
    assert first.told(seconds=0.5)["workers"] == 2


@TWO
def test_a_worker_that_was_started_on_fewer_cpus_is_left_there(start: Start) -> None:
    worker = start(start_on=CPUS[-1:])
    assert (worker.first["cpus"], worker.first["threads"], worker.first["index"]) == (CPUS[-1:], 1, None)
    assert "left as whoever started this worker on fewer CPUs" in worker.first["text"]


@TWO
def test_cpus_that_somebody_changes_later_are_left_so(start: Start) -> None:
    worker = start(workers=1)
    assert worker.first["cpus"] == CPUS
    assert worker.told(bind=CPUS[:1])["workers"] == 1
    worker.told()
    shown = worker.told()
    assert shown["cpus"] == CPUS[:1]
    assert shown["threads"] == 1
    assert any("changed" in line and "left so" in line for line in worker.log)


@TWO
def test_a_kernel_that_gives_all_cpus_back_is_told_again(start: Start) -> None:
    """What Linux before 6.2 does to every process of a cpuset that is written."""
    first, second = start(), start()
    shown = first.told(bind=CPUS)
    assert shown["cpus"] == first.first["cpus"]
    assert second.told()["workers"] == 2


@TWO
def test_no_binding_where_the_operator_wants_none(start: Start) -> None:
    first, second = start(is_binding=False), start(is_binding=False)
    assert cpus_of(first.first, second.first) == [CPUS, CPUS]
    assert second.first["threads"] == max(1, len(CPUS) // 2)


@TWO
def test_more_threads_than_the_share_get_room(start: Start) -> None:
    first, second = start(threads=len(CPUS)), start(threads=len(CPUS))
    assert cpus_of(first.first, second.first) == [CPUS, CPUS]
    assert first.first["threads"] == len(CPUS)


def test_a_quota_changed_while_running_is_followed(start: Start, tmp_path: Path) -> None:
    quota = "sys/fs/cgroup/app/cpu.max"
    root = make_root(tmp_path, [V2_MOUNT], ["0::/app"], {quota: "max 100000\n"})
    worker = start(workers=1, root=str(root))
    assert worker.first["threads"] == len(CPUS)
    (root / quota).write_text("50000 100000\n")
    shown = worker.told()
    assert (shown["threads"], shown["cpus"]) == (1, CPUS)
    assert "0.5 CPUs" in shown["text"]
    (root / quota).write_text("what is this\n")
    assert worker.told()["threads"] == 1
    assert any("cannot be followed" in line for line in worker.log)
    (root / quota).write_text("max 100000\n")
    assert worker.told()["threads"] == len(CPUS)


@pytest.fixture
def _own_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_HANDLERS_SCOPE", f"test-{uuid.uuid4().hex[:12]}")
    monkeypatch.setattr("ts_handlers.machine.placement.worker._logged", set())


@pytest.mark.usefixtures("_own_scope")
def test_where_workers_cannot_see_each_other_none_is_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no abstract sockets in this sandbox")

    monkeypatch.setattr("ts_handlers.machine.placement.worker.Membership", refuse)
    for _ in range(2):
        placement = Placement("a 1.0", Declared(2, "the test"))
    assert os.sched_getaffinity(0) == set(CPUS)
    assert (placement.place.share.num_workers, placement.place.index) == (2, None)
    assert [record.getMessage() for record in caplog.records] == [
        "ts_handlers: workers cannot see each other, so none is bound to CPUs: no abstract sockets in this sandbox"
    ]


@pytest.mark.usefixtures("_own_scope")
def test_where_the_kernel_refuses_the_reason_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[object] = []

    def refuse(cpus: object) -> None:
        tried.append(cpus)
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr("ts_handlers.machine.placement.worker.bind_threads", refuse)
    joined: list[Membership] = []

    def join(*arguments: Any) -> Membership:
        joined.append(Membership(*arguments))
        return joined[-1]

    monkeypatch.setattr("ts_handlers.machine.placement.worker.Membership", join)
    placement = Placement("a 1.0", Declared(2, "the test"), monotonic=itertools.count(0, 2).__next__)
    assert placement.follow() is None
    assert len(tried) == 2, "at the next look it is tried again"
    assert caplog.text.count("are not bound to CPUs") == 1
    assert "changed" not in caplog.text
    assert "threads are not bound to them" in placement.describe()
    joined[0].leave()


def test_under_torch_s_launcher_it_stands_back(tmp_path: Path) -> None:
    """The launcher's command line alone; tests of `configure --launcher` run the real one."""
    proc = tmp_path / f"proc/{os.getppid()}"
    proc.mkdir(parents=True)
    (proc / "cmdline").write_bytes(b"python\0-m\0torch.backends.xeon.run_cpu\0--ninstances\0002\0")
    (proc / "stat").write_text(f"7 (a (b) c) {' '.join(map(str, range(3, 60)))}\n")
    placement = Placement("a 1.0", Declared(4, "the test"), root=tmp_path)
    assert placement.place.index is None
    assert placement.place.share.threads == len(CPUS), "its CPUs are its own: they are not divided again"
    assert "left as torch's CPU launcher set it" in placement.describe()
    assert os.sched_getaffinity(0) == set(CPUS)


def test_a_parent_that_is_not_to_be_seen(tmp_path: Path) -> None:
    parent = Parent.of_this_process(tmp_path)
    assert (parent.started_s, parent.is_launcher) == (0, False)
    assert Parent(0, 0, is_launcher=False).affinity() is None
    assert Parent(2**22 + 1, 0, is_launcher=False).affinity() is None
