from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ts_handlers.errors import ConfigError
from ts_handlers.machine.placement.membership import Announcement, Membership, digest, machine_scope
from ts_handlers.machine.placement.roster import ABSENCE_S, STARTUP_S, Roster

NOW_S = 5000
SOMEBODY = Announcement("a", 1, 0, is_of_model=False, expected=0, started_s=0)
Join = Callable[..., Membership]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return NOW_S + self.now


@pytest.fixture
def scope() -> str:
    return digest(uuid.uuid4().hex)


@pytest.fixture
def join(scope: str) -> Iterator[Join]:
    """Workers in this process, who leave at the end."""
    with ExitStack() as stack:

        def member(server: int = 1, expected: int = 0, model: str = "a", *, of_model: bool = False) -> Membership:
            joined = Membership(Announcement(model, server, 0, of_model, expected, NOW_S), scope)
            stack.callback(joined.leave)
            return joined

        yield member


@pytest.fixture
def clock() -> Clock:
    return Clock()


def roster(membership: Membership, clock: Clock) -> Roster:
    return Roster(membership, monotonic=clock, since_boot=clock)


def looks(rosters: list[Roster]) -> list[tuple[int, int]]:
    return [each.look() for each in rosters]


def test_workers_get_places_in_the_order_they_come(join: Join, clock: Clock) -> None:
    rosters = [roster(join(), clock) for _ in range(3)]
    assert looks(rosters) == [(0, 3), (1, 3), (2, 3)]


def test_a_new_worker_takes_the_slot_that_was_left(join: Join, clock: Clock) -> None:
    first, second, third = join(), join(), join()
    second.leave()
    fourth = join()
    assert [each.member.slot for each in (first, fourth, third)] == [0, 1, 2]


def test_nobody_moves_while_a_worker_is_restarted(join: Join, clock: Clock) -> None:
    memberships = [join() for _ in range(3)]
    rosters = [roster(each, clock) for each in memberships]
    looks(rosters)
    memberships[1].leave()
    clock.now += 100 * ABSENCE_S  # an idle worker does not look for long: it counts from when it misses somebody
    assert [rosters[0].look(), rosters[2].look()] == [(0, 3), (2, 3)]
    clock.now += ABSENCE_S - 1
    assert [rosters[0].look(), rosters[2].look()] == [(0, 3), (2, 3)]
    again = roster(join(), clock)
    clock.now += ABSENCE_S
    assert [rosters[0].look(), again.look(), rosters[2].look()] == [(0, 3), (1, 3), (2, 3)]


def test_the_others_move_up_when_a_worker_stays_away(join: Join, clock: Clock) -> None:
    memberships = [join() for _ in range(3)]
    rosters = [roster(each, clock) for each in memberships]
    looks(rosters)
    memberships[1].leave()
    clock.now += 1
    looks([rosters[0], rosters[2]])
    clock.now += ABSENCE_S
    assert looks([rosters[0], rosters[2]]) == [(0, 2), (1, 2)]


def test_the_first_worker_of_a_server_leaves_room_for_those_to_come(join: Join, clock: Clock) -> None:
    first = roster(join(expected=4), clock)
    assert first.look() == (0, 4)
    others = [roster(join(expected=4), clock) for _ in range(3)]
    assert looks([first, *others]) == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_those_who_never_came_are_forgotten(join: Join, clock: Clock) -> None:
    first = roster(join(expected=4), clock)
    clock.now += STARTUP_S
    assert first.look() == (0, 1)


def test_a_server_scaled_down_at_once_is_not_waited_for(join: Join, clock: Clock) -> None:
    memberships = [join(expected=2), join(expected=2)]
    first = roster(memberships[0], clock)
    assert first.look() == (0, 2)
    memberships[1].leave()
    assert first.look() == (0, 2)
    clock.now += ABSENCE_S
    assert first.look() == (0, 1)


def test_more_workers_than_declared_count(join: Join, clock: Clock) -> None:
    rosters = [roster(join(expected=2), clock) for _ in range(3)]
    assert looks(rosters) == [(0, 3), (1, 3), (2, 3)]


def test_two_servers_add_up(join: Join, clock: Clock) -> None:
    ours = [roster(join(1, 2), clock) for _ in range(2)]
    theirs = roster(join(2, 3), clock)
    assert looks([*ours, theirs]) == [(0, 5), (1, 5), (2, 5)]


def test_the_workers_of_a_model_have_neighbouring_places(join: Join, clock: Clock) -> None:
    rosters = {name: roster(join(model=name[0]), clock) for name in ("a1", "b1", "a2", "b2")}
    assert {name: each.look()[0] for name, each in rosters.items()} == {"a1": 0, "a2": 1, "b1": 2, "b2": 3}


def test_a_model_that_is_registered_later_is_waited_for_as_well(join: Join, clock: Clock) -> None:
    early = roster(join(1, 1, model="a", of_model=True), clock)
    clock.now += 10 * STARTUP_S
    late = Membership(Announcement("b", 1, 0, True, 3, int(clock())), join().__dict__["_scope"])
    try:
        assert roster(late, clock).look()[1] == 2 + 3
        assert early.look()[1] == 2 + 3
    finally:
        late.leave()


def test_who_is_on_other_cpus_is_not_counted(join: Join, clock: Clock) -> None:
    mine = join(1)
    join(2)
    assert Roster(mine, counts=lambda member: member.announced.parent_pid == 1).look() == (0, 1)


def test_another_scope_is_not_counted(join: Join, clock: Clock, scope: str) -> None:
    mine = roster(join(), clock)
    other = Membership(SOMEBODY, digest("another"))
    try:
        assert other.member.slot == 0
        assert mine.look() == (0, 1)
    finally:
        other.leave()


JOIN = """
import sys
from ts_handlers.machine.placement.membership import Announcement, Membership
joined = Membership(Announcement("a", 1, 0, False, 0, 0), sys.argv[1])
print(joined.member.slot, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_nothing(scope: str, clock: Clock) -> None:
    command = [sys.executable, "-c", JOIN, scope]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "0\n"
        mine = Membership(SOMEBODY, scope)
        assert (mine.member.slot, len(mine.members())) == (1, 2)
        worker.kill()
        worker.wait()
        assert mine.members() == {mine.member}
        mine.leave()
    assert scope not in Path("/proc/net/unix").read_text()


def test_many_processes_at_once_get_a_slot_each(scope: str) -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", JOIN, scope]
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(6)
        ]
        slots = [int(worker.stdout.readline()) for worker in workers if worker.stdout is not None]
        for worker in workers:
            worker.communicate("")
    assert sorted(slots) == list(range(6))


def test_other_sockets_are_passed_over(join: Join, scope: str) -> None:
    mine = join()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(f"\0ts_handlers/{scope}/worker/x/y")
        assert mine.members() == {mine.member}
    assert mine.members(Path("/dev/null")) == {mine.member}


def test_the_scope_is_the_container_s_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine_scope() == machine_scope()
    assert machine_scope(tmp_path) == digest("0\n0")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/one.service\n")
    assert machine_scope(tmp_path) not in (machine_scope(), digest("0\n0"))
    monkeypatch.setenv("TS_HANDLERS_SCOPE", "pod-7")
    assert machine_scope() == digest("pod-7")


def test_the_longest_name_fits() -> None:
    largest = Announcement(digest("a"), 2**22, 10**9, is_of_model=True, expected=10**6, started_s=10**9)
    membership = Membership(largest, digest(uuid.uuid4().hex))
    try:
        assert membership.members() == {membership.member}
    finally:
        membership.leave()


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "ä"])
def test_a_scope_that_is_no_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_HANDLERS_SCOPE", name)
    with pytest.raises(ConfigError, match="TS_HANDLERS_SCOPE is"):
        machine_scope()


def test_slots_run_out_with_an_error(monkeypatch: pytest.MonkeyPatch, join: Join) -> None:
    monkeypatch.setattr("ts_handlers.machine.placement.membership.MAX_SLOTS", 1)
    for _ in itertools.repeat(None, 2):
        join()
    with pytest.raises(OSError, match="in use"):
        join()
