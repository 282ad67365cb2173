from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.operate.results_of import DEFAULT, LARGER, MORE, TRIAL_S, measured, results_of
from ts_handlers.errors import OperatorError
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.tune.results import Objective, Results, Setting, Trial
from ts_handlers.operate.tune.search import NUM_ROUNDS, decide, next_setting, settings_to_try
from ts_handlers.operate.tune.session import FIRST_START_LIMIT_S, search

SETTINGS = (DEFAULT, MORE, LARGER)
PLENTY_S = 1000.0


def tried(default: Setting, cpus: float = 4.0, memory: int = 1000, is_threads_free: bool = True) -> tuple[Setting, ...]:
    return settings_to_try(default, cpus, max_workers=memory, max_batch_size=16, is_threads_free=is_threads_free)


def blocks(*rates: float) -> list[LoadResult | str]:
    return [measured(rate) for rate in rates]


def test_the_default_is_first_and_the_list_is_short() -> None:
    settings = tried(Setting(4, 1, 8, 1))
    assert settings[:4] == (Setting(4, 1, 8, 1), Setting(8, 1, 8, 1), Setting(4, 1, 4, 1), Setting(4, 1, 8, 5))
    assert len(set(settings)) == len(settings) <= 12
    assert {Setting(2, 2, 8, 1), Setting(3, 1, 8, 1), Setting(4, 1, 1, 1), Setting(8, 1, 16, 5)} < set(settings)


@pytest.mark.parametrize("cpus", [0.5, 1.0, 2.0, 3.9, 8.0, 64.0])
def test_more_threads_than_cpus_come_from_workers_with_one_thread_only(cpus: float) -> None:
    whole = max(1, int(cpus))
    settings = tried(Setting(whole, 1, 8, 1), cpus)
    assert max(setting.workers for setting in settings) == 2 * whole
    assert all(setting.workers * setting.threads <= whole or setting.threads == 1 for setting in settings)


def test_memory_bounds_the_workers_and_concurrency_the_batch() -> None:
    assert {setting.workers for setting in tried(Setting(2, 2, 16, 1), memory=3)} == {1, 2, 3}
    assert max(setting.batch_size for setting in tried(Setting(2, 2, 16, 1))) == 16


def test_only_a_handler_of_ours_is_given_fewer_threads_than_its_share() -> None:
    assert Setting(2, 1, 8, 1) in tried(Setting(2, 2, 8, 1))
    assert Setting(2, 1, 8, 1) not in tried(Setting(2, 2, 8, 1), is_threads_free=False)


def test_a_batch_of_one_never_waits_so_its_delay_is_one_setting() -> None:
    assert {each.max_batch_delay_ms for each in tried(Setting(4, 1, 1, 1)) if each.batch_size == 1} == {1}


def test_settings_take_turns_until_each_was_measured_four_times() -> None:
    known = results_of({})
    order = []
    while (setting := next_setting(SETTINGS, known, PLENTY_S)) is not None:
        order.append(setting)
        known.trials.append(Trial(setting, 6.0, TRIAL_S, measured(100)))
    assert order == [*SETTINGS] * NUM_ROUNDS


def test_time_bounds_the_settings_and_their_turns() -> None:
    known = results_of({DEFAULT: blocks(100)})
    assert next_setting(SETTINGS, known, 12 * TRIAL_S) == MORE
    known = results_of({DEFAULT: blocks(100), MORE: blocks(100)})
    assert next_setting(SETTINGS, known, 12 * TRIAL_S) == LARGER
    assert next_setting(SETTINGS, known, 11 * TRIAL_S) == DEFAULT  # no time for a third setting
    assert next_setting(SETTINGS, known, 3 * TRIAL_S) == DEFAULT
    assert next_setting(SETTINGS, known, 2.9 * TRIAL_S) is None


def test_what_is_worse_in_every_block_or_failed_is_left_out() -> None:
    known = results_of({DEFAULT: blocks(100, 101), MORE: blocks(99, 98), LARGER: blocks(90, 102)})
    assert next_setting(SETTINGS, known, PLENTY_S) == DEFAULT
    known.trials.append(Trial(DEFAULT, 6, TRIAL_S, measured(100)))
    assert next_setting(SETTINGS, known, PLENTY_S) == LARGER
    known.trials.append(Trial(LARGER, 0, TRIAL_S, None, "it did not start"))
    assert next_setting(SETTINGS, known, PLENTY_S) is None
    assert next_setting(SETTINGS, results_of({DEFAULT: blocks(100), MORE: blocks(1)}), PLENTY_S) == LARGER
    assert next_setting(SETTINGS, results_of({DEFAULT: ["broken"]}), PLENTY_S) is None


@pytest.mark.parametrize(
    ("objective", "best_first"),
    [
        (Objective(), [(20, 900), (10, 1)]),
        (Objective(slo_p99_ms=100), [(10, 100), (9, 20), (50, 101), (90, 300)]),
        (Objective(rate=100), [(99, 10), (100, 20), (90, 5), (50, 1)]),
        (Objective(slo_p99_ms=15, rate=100), [(99, 10), (100, 20), (100, 30), (90, 5)]),
    ],
)
def test_the_objective_orders_measurements(objective: Objective, best_first: list[tuple[float, float]]) -> None:
    ordered = [measured(*each) for each in best_first]
    assert sorted(ordered, key=objective.score) == ordered[::-1]


@pytest.mark.parametrize(
    ("ours", "theirs", "choice", "said"),
    [
        ([110, 112], [100, 102], MORE, "It has 1.10 times the requests per second of the default, in every block."),
        ([110, 101], [100, 102], DEFAULT, "of the default, within noise, so the default is kept."),  # blocks overlap
        ([102, 102], [100, 100], DEFAULT, "within noise"),  # apart, but by less than what is worth it
        ([90, 91], [100, 102], DEFAULT, "It has 0.90 times the requests per second of the default, so the default is"),
        ([110], [100, 102], DEFAULT, "No other setting was measured 2 times (the others failed, or"),
        ([110, 110], [100], DEFAULT, "No other setting was measured 2 times (the others failed, or"),
    ],
)
def test_the_default_is_kept_unless_it_is_beaten(
    ours: Sequence[float], theirs: Sequence[float], choice: Setting, said: str
) -> None:
    outcome = decide(results_of({DEFAULT: blocks(*theirs), MORE: blocks(*ours)}))
    assert (outcome.choice, outcome.is_met) == (choice, True)
    assert said in outcome.sentences[-1]


def test_a_steady_gain_is_preferred_to_a_larger_one_within_noise() -> None:
    outcome = decide(results_of({DEFAULT: blocks(100, 102), MORE: blocks(99, 200, 200), LARGER: blocks(110, 112, 111)}))
    assert outcome.choice == LARGER


def test_the_outcome_says_the_figures_of_both() -> None:
    outcome = decide(results_of({DEFAULT: blocks(100, 102), MORE: blocks(110, 112), LARGER: ["broken"]}))
    assert outcome.sentences == (
        "Chosen: 4 workers x 1 thread, batch 8, delay 1 ms.",
        "The default of configure, 2 workers x 1 thread, batch 8, delay 1 ms: 100.0, 102.0 requests/s, p99 50.0, 50.0 ms.",
        "The best other setting, 4 workers x 1 thread, batch 8, delay 1 ms: 110.0, 112.0 requests/s, p99 50.0, 50.0 ms.",
        "It has 1.10 times the requests per second of the default, in every block.",
    )


def compared(objective: Objective, ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> str:
    """Compare blocks of rate and p99, and return the last sentences."""
    outcome = decide(
        results_of({DEFAULT: [measured(*each) for each in theirs], MORE: [measured(*each) for each in ours]}, objective)
    )
    assert outcome.is_met == (len(outcome.sentences) == 4)
    return " ".join(outcome.sentences[3:])


@pytest.mark.parametrize(
    ("objective", "ours", "theirs", "said"),
    [
        (
            Objective(slo_p99_ms=100),
            [(100, 80)] * 2,
            [(200, 150)] * 2,
            "It comes nearer to the objective than the default",
        ),
        (
            Objective(slo_p99_ms=100),
            [(200, 150)] * 2,
            [(100, 80)] * 2,
            "It is farther from the objective than the default",
        ),
        (Objective(slo_p99_ms=100), [(100, 80)] * 2, [(100, 70), (100, 120)], "within noise"),
        (Objective(slo_p99_ms=10), [(50, 40)] * 2, [(90, 80)] * 2, "It has 2.00 times as low a p99 of the default, in"),
        (Objective(slo_p99_ms=10), [(50, 40)] * 2, [(90, 80)] * 2, "No setting meets the objective, the most requests"),
        (Objective(rate=100), [(100, 20)] * 2, [(100, 50)] * 2, "It has 2.50 times as low a p99 of the default, in"),
        (
            Objective(rate=100),
            [(80, 20)] * 2,
            [(40, 50)] * 2,
            "It has 2.00 times the requests per second of the default",
        ),
    ],
)
def test_the_gain_is_of_what_counts(
    objective: Objective, ours: list[tuple[float, float]], theirs: list[tuple[float, float]], said: str
) -> None:
    assert said in compared(objective, ours, theirs)


class Server:
    """Answers settings at the rates it is given, each trial once."""

    def __init__(self, rates: dict[Setting, float]) -> None:
        self.rates, self.limits_s = rates, list[float]()

    def measure(self, setting: Setting, start_limit_s: float) -> Trial:
        self.limits_s.append(start_limit_s)
        if setting not in self.rates:
            return Trial(setting, 0.0, TRIAL_S, None, "it did not start")
        return Trial(setting, 6.0, TRIAL_S, measured(self.rates[setting]))


@pytest.fixture
def known(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of({}, path=tmp_path_factory.mktemp("out") / "results.json")


def test_a_search_keeps_every_trial_and_says_each(known: Results, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server({DEFAULT: 100.0, MORE: 120.0})
    assert search(SETTINGS, known, PLENTY_S, server.measure).choice == MORE
    assert known.outcome is not None
    assert [trial.setting for trial in known.trials] == [DEFAULT, MORE, LARGER, *[DEFAULT, MORE] * 3]
    assert server.limits_s[:2] == [FIRST_START_LIMIT_S + 30, 48.0]
    first, _, third, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "trial 1: 2 workers x 1 thread, batch 8, delay 1 ms: 100.0 requests/s, p99 50.0 ms (at most 16 "
    )
    assert "failed: it did not start" in third
    again = Server({})
    search(SETTINGS, known, PLENTY_S, again.measure)
    assert again.limits_s == []  # all is known


def test_more_time_goes_on_from_what_is_known(known: Results) -> None:
    server = Server(dict.fromkeys(SETTINGS, 100.0))
    search(SETTINGS, known, 4 * TRIAL_S, server.measure)
    assert len(known.trials) == 4
    search(SETTINGS, known, PLENTY_S, server.measure)
    assert len(known.trials) == NUM_ROUNDS * len(SETTINGS)


def test_a_default_that_cannot_be_measured_ends_the_search(known: Results) -> None:
    with pytest.raises(
        OperatorError, match="configure's default, 2 workers .* could not be measured: it did not start"
    ):
        search(SETTINGS, known, PLENTY_S, Server({}).measure)
