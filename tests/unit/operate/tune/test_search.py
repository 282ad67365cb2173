"""The search on a machine that is a formula: a real one cannot be made slow, broken or interrupted on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.tune.objective import Measurement, Objective
from ts_handlers.operate.tune.results import Results, Subject, Trial, read_results
from ts_handlers.operate.tune.search import Limits, Search, failure
from ts_handlers.operate.tune.space import Bounds, Setting, candidates

DEFAULT = Setting(4, 1, 8, 1)
SETTINGS = candidates(DEFAULT, Bounds(cpus=4.0, max_workers=100, max_batch_size=32))
SUBJECT = Subject("echo 1.0", "a", "b", {"rate": None}, {"CPU": "a formula"})


def best_at(best: Setting) -> Callable[[Setting], float]:
    """Requests per second that fall with the distance from a setting."""

    def rate(setting: Setting) -> float:
        distance = abs(setting.workers - best.workers) + abs(setting.threads - best.threads)
        return (
            1000 - 40 * distance - 5 * abs(setting.batch_size - best.batch_size) - abs(setting.max_batch_delay_ms - 1)
        )

    return rate


@dataclass
class FormulaMachine:
    """Measures by a formula, on a clock of its own."""

    rate: Callable[[Setting], float]
    overhead_s: float = 15.0
    broken: Callable[[Setting], bool] = lambda _: False
    interrupt_after: int | None = None
    now_s: float = 0.0
    ran: list[Trial] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def measure(self, setting: Setting, seconds: float, rung: int | None) -> Trial:
        if self.interrupt_after == len(self.ran):
            raise KeyboardInterrupt
        total_s = self.overhead_s + seconds
        self.now_s += total_s
        rate = self.rate(setting)
        measured = Measurement(rate, 10, 20, 10_000 / rate, num_ok=int(rate * seconds))
        if self.broken(setting):
            trial = Trial(setting, rung, seconds, 0, total_s, None, "the server ended")
        else:
            trial = Trial(setting, rung, seconds, self.overhead_s, total_s, measured)
        self.ran.append(trial)
        return trial


class Heard:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.plans: list[tuple[int, float]] = []

    def plan(self, num_trials: int, seconds_left: float) -> None:
        self.plans.append((num_trials, seconds_left))

    def begin(self, what: str, setting: Setting) -> None:
        self.begun.append(what)

    def end(self, trial: Trial) -> None:
        assert self.begun


def results_in(folder: Path, objective: Objective | None = None) -> Results:
    return Results(folder / "results.json", SUBJECT, DEFAULT, objective or Objective())


def search(
    machine: FormulaMachine,
    results: Results,
    *,
    minutes: float = 10,
    max_settings: int = 81,
    heard: Heard | None = None,
) -> Search:
    limits = Limits(60 * minutes, 5.0, max_settings)
    return Search(SETTINGS, limits, results, machine.measure, heard or Heard(), machine.clock)


def test_it_finds_what_no_single_axis_shows(tmp_path: Path) -> None:
    best = Setting(8, 1, 16, 1)  # two steps from the default
    results = results_in(tmp_path)
    machine = FormulaMachine(best_at(best))
    heard = Heard()
    outcome = search(machine, results, heard=heard).run()
    assert outcome.choice == outcome.contender == best
    assert outcome.verdict is not None
    assert outcome.verdict.is_better
    assert [trial.setting for trial in results.final] == [best, DEFAULT, best, DEFAULT]
    assert heard.begun[0] == "round 1"
    assert heard.begun[-1] == "final"
    assert [num_trials for num_trials, _ in heard.plans][-1] == 4
    assert read_results(results.path) == results


def test_the_default_is_chosen_where_it_is_the_best_and_is_in_every_round(tmp_path: Path) -> None:
    results = results_in(tmp_path)
    outcome = search(FormulaMachine(best_at(DEFAULT)), results).run()
    assert outcome.choice == DEFAULT != outcome.contender
    rounds = {trial.rung for trial in results.trials}
    assert len(rounds) > 2
    assert {trial.rung for trial in results.trials if trial.setting == DEFAULT} == rounds


@pytest.mark.parametrize("minutes", [3, 5, 10, 30])
@pytest.mark.parametrize("overhead_s", [6.0, 15.0, 25.0])
def test_it_keeps_to_its_minutes(tmp_path: Path, minutes: float, overhead_s: float) -> None:
    machine = FormulaMachine(best_at(Setting(8, 1, 16, 1)), overhead_s=overhead_s)
    if minutes * 60 < 2 * (overhead_s + 5) + 4 * (overhead_s + 5):
        with pytest.raises(OperatorError, match=r"minutes are too short: a trial takes 25 s .* give --minutes"):
            search(machine, results_in(tmp_path), minutes=minutes).run()
    else:
        search(machine, results_in(tmp_path), minutes=minutes).run()
        assert machine.now_s <= 60 * minutes
        assert machine.now_s > 0.7 * 60 * minutes or len({trial.setting for trial in machine.ran}) >= 81


def test_servers_that_become_slower_make_it_shorter_not_longer(tmp_path: Path) -> None:
    machine = FormulaMachine(best_at(DEFAULT))

    def slower(setting: Setting, seconds: float, rung: int | None) -> Trial:
        machine.overhead_s *= 1.15
        return FormulaMachine.measure(machine, setting, seconds, rung)

    limits = Limits(600, 5.0, 81)
    results = results_in(tmp_path)
    outcome = Search(SETTINGS, limits, results, slower, Heard(), machine.clock).run()
    assert outcome.verdict is not None
    assert machine.now_s < 1.5 * 600  # four last servers, each slower than any before


def test_an_interrupted_search_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    best = Setting(2, 2, 4, 1)
    whole = FormulaMachine(best_at(best))
    (tmp_path / "whole").mkdir()
    expected = search(whole, results_in(tmp_path / "whole")).run()
    for stop_after in range(1, len(whole.ran)):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        first, second = (
            FormulaMachine(best_at(best), interrupt_after=stop_after),
            FormulaMachine(best_at(best)),
        )
        with pytest.raises(KeyboardInterrupt):
            search(first, results_in(folder)).run()
        known = read_results(folder / "results.json")
        assert known.trials == first.ran
        assert search(second, known).run() == expected
        num_searched = sum(trial.rung is not None for trial in first.ran + second.ran)
        assert num_searched == sum(trial.rung is not None for trial in whole.ran)  # nothing was measured twice
        assert len(known.final) == 4


def test_a_setting_that_fails_is_recorded_and_ends_nothing(tmp_path: Path) -> None:
    results = results_in(tmp_path)
    machine = FormulaMachine(best_at(Setting(8, 1, 8, 1)), broken=lambda setting: setting.workers == 8)
    outcome = search(machine, results).run()
    failed = [trial for trial in results.trials if trial.reason is not None]
    assert failed
    assert {trial.setting.workers for trial in failed} == {8}
    assert outcome.choice.workers != 8


def test_a_default_that_fails_is_not_compared(tmp_path: Path) -> None:
    results = results_in(tmp_path)
    outcome = search(FormulaMachine(best_at(DEFAULT), broken=lambda setting: setting == DEFAULT), results).run()
    assert outcome.verdict is None
    assert outcome.choice != DEFAULT
    assert outcome.is_met
    assert results.final == []


def test_where_everything_fails_it_gives_up_early_and_says_why(tmp_path: Path) -> None:
    machine = FormulaMachine(best_at(DEFAULT), broken=lambda _: True)
    with pytest.raises(OperatorError, match="no setting could be measured; with the default: the server ended"):
        search(machine, results_in(tmp_path)).run()
    assert len(machine.ran) == 3


def test_what_failed_is_tried_again_once_its_cause_may_be_repaired(tmp_path: Path) -> None:
    machine = FormulaMachine(best_at(Setting(8, 1, 8, 1)), broken=lambda setting: setting.workers == 8)
    machine.interrupt_after = len(SETTINGS[:20])
    results = results_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(machine, results).run()
    assert any(trial.measured is None for trial in results.trials)
    repaired = FormulaMachine(best_at(Setting(8, 1, 8, 1)))
    known = read_results(results.path)
    assert search(repaired, known).run().choice.workers == 8
    assert all(trial.measured is not None for trial in known.trials)


def test_a_later_round_in_which_everything_fails_leaves_the_order_of_the_one_before(tmp_path: Path) -> None:
    best = Setting(8, 1, 16, 1)
    machine = FormulaMachine(best_at(best))

    def measure(setting: Setting, seconds: float, rung: int | None) -> Trial:
        machine.broken = lambda _: rung == 1
        return FormulaMachine.measure(machine, setting, seconds, rung)

    results = results_in(tmp_path)
    outcome = Search(SETTINGS, Limits(600, 5.0, 81), results, measure, Heard(), machine.clock).run()
    assert {trial.rung for trial in results.trials if trial.measured is None} == {1}
    assert outcome.verdict is not None
    assert len(results.final) == 4


@pytest.mark.parametrize(
    ("fails", "is_default_kept"),
    [
        ((False, True, False, True), False),  # the default, twice
        ((False, True, False, False), True),  # the default, once: nothing is told from noise
        ((True, False, False, False), True),
        ((True, True, True, True), True),
    ],
)
def test_a_verdict_needs_two_blocks_of_each_and_without_a_bound_whatever_is_chosen_meets_it(
    tmp_path: Path, fails: tuple[bool, ...], is_default_kept: bool
) -> None:
    machine = FormulaMachine(best_at(Setting(8, 1, 16, 1)))
    results = results_in(tmp_path)

    def measure(setting: Setting, seconds: float, rung: int | None) -> Trial:
        machine.broken = lambda _: rung is None and fails[len(results.final)]
        return FormulaMachine.measure(machine, setting, seconds, rung)

    outcome = Search(SETTINGS, Limits(600, 5.0, 81), results, measure, Heard(), machine.clock).run()
    assert outcome.verdict is None
    assert outcome.is_met
    assert (outcome.choice == DEFAULT) is is_default_kept


def test_a_contender_that_fails_in_the_end_is_not_chosen(tmp_path: Path) -> None:
    machine = FormulaMachine(best_at(Setting(8, 1, 8, 1)))
    machine.broken = lambda setting: setting != DEFAULT and any(trial.rung is None for trial in results.trials)
    results = results_in(tmp_path)

    def measure(setting: Setting, seconds: float, rung: int | None) -> Trial:
        machine.broken = lambda other: rung is None and other != DEFAULT
        return FormulaMachine.measure(machine, setting, seconds, rung)

    outcome = Search(SETTINGS, Limits(600, 5.0, 81), results, measure, Heard(), machine.clock).run()
    assert outcome.choice == DEFAULT
    assert outcome.verdict is None


def test_a_bound_that_nobody_meets_gives_the_lowest_p99_and_says_so(tmp_path: Path) -> None:
    results = results_in(tmp_path, Objective(slo_p99_ms=1))
    outcome = search(FormulaMachine(best_at(Setting(8, 1, 16, 1))), results).run()
    assert not outcome.is_met
    assert outcome.choice == Setting(8, 1, 16, 1)


def test_the_number_of_settings_is_bounded(tmp_path: Path) -> None:
    results = results_in(tmp_path)
    search(FormulaMachine(best_at(DEFAULT)), results, max_settings=2).run()
    assert results.num_settings == 2


def test_more_errors_than_one_in_a_hundred_are_a_failure() -> None:
    assert failure(Measurement(1, 1, 1, 1, num_ok=99, errors={"503": 1})) is None
    assert failure(Measurement(1, 1, 1, 1, num_ok=98, errors={"503": 2})) == "2% of the requests failed (2 x 503)"
    assert failure(Measurement(0, 0, 0, 0, num_ok=0)) == "100% of the requests failed (none was answered)"
