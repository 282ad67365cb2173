"""The search: a short list of settings, measured in turns, and the best of them against the default. Pure functions."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from ts_handlers.errors import OperatorError
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.tune.results import MET, Objective, Outcome, Results, Setting, shown

NUM_ROUNDS = 4
"""Each setting is measured so often, at most."""

MIN_ROUNDS = 2
"""Fewer measurements of a setting do not tell a gain from noise."""

MIN_GAIN = 1.03
"""A smaller gain is not worth another setting."""

_DELAY_MS, _LONG_DELAY_MS = 5, 20


def settings_to_try(
    default: Setting, cpus: float, *, max_workers: int, max_batch_size: int, is_threads_free: bool
) -> tuple[Setting, ...]:
    """Return the default and what differs from it, the most telling first: the first n of them are a sensible spread.

    More workers than CPUs can pay, because one decodes while another computes; fewer leave a CPU to the frontend.

    Args:
        default: What `configure` chooses.
        cpus: The CPU budget.
        max_workers: Workers that the memory holds.
        max_batch_size: Requests that can wait at once: larger batches never fill.
        is_threads_free: Whether the handler can be told its threads; else they are its share of the CPUs.
    """
    whole = max(1, math.floor(cpus))

    def shaped(workers: int) -> Setting:
        return replace(default, workers=workers, threads=max(1, whole // max(1, workers)))

    more, larger = shaped(2 * default.workers), 2 * default.batch_size
    settings = (
        more,
        replace(default, batch_size=default.batch_size // 2),
        replace(default, max_batch_delay_ms=_DELAY_MS),
        shaped(default.workers // 2),
        replace(default, batch_size=larger),
        replace(default, max_batch_delay_ms=_LONG_DELAY_MS),
        replace(default, threads=default.threads // 2 if is_threads_free else default.threads),
        replace(more, batch_size=larger, max_batch_delay_ms=_DELAY_MS),
        replace(default, batch_size=1),
        shaped(whole - 1),
        shaped(whole),
    )
    possible = (
        setting
        for setting in settings
        if 1 <= setting.workers <= max_workers
        and setting.threads >= 1
        and 1 <= setting.batch_size <= max_batch_size
        and (setting.batch_size > 1 or setting.max_batch_delay_ms == default.max_batch_delay_ms)  # else it never waits
    )
    return tuple(dict.fromkeys((default, *possible)))


def next_setting(settings: tuple[Setting, ...], results: Results, budget_s: float) -> Setting | None:
    """Return what to measure next; None when everything is known, or the time is over.

    As many settings as the time allows take turns, the default first. What failed is out, and so is what was worse than
    the default in every one of its blocks.

    Args:
        settings: What may be tried, the default first.
        results: What is known; its trials have taken their part of the time.
        budget_s: Seconds of the whole search.
    """
    if not results.trials:
        return settings[0]
    blocks, cost_s = results.blocks(), results.trials[0].total_s
    num_affordable = max(2, int(budget_s / (NUM_ROUNDS * cost_s)))
    failed = {trial.setting for trial in results.trials if trial.measured is None}
    default = blocks.get(settings[0], [])
    num_blocks = {
        setting: len(blocks.get(setting, ()))
        for setting in settings[:num_affordable]
        if setting not in failed and not is_apart(results.objective, default, blocks.get(setting, []))
    }
    left_s = budget_s - sum(trial.total_s for trial in results.trials)
    if settings[0] in failed or len(num_blocks) < 2 or min(num_blocks.values()) == NUM_ROUNDS or left_s < cost_s:
        return None
    return min(num_blocks, key=num_blocks.__getitem__)


def decide(results: Results) -> Outcome:
    """Compare the best setting with the default: the default is kept unless it is beaten beyond noise.

    The best is better if each of its blocks is better than each of the default's, and the gain is MIN_GAIN or more or
    it alone meets the objective. What stands for all blocks of a setting is their median.

    Raises:
        OperatorError: The default could not be measured, so that there is nothing to compare with.
    """
    objective, blocks = results.objective, results.blocks()
    ours = blocks.pop(results.default, [])
    if not ours:
        reason = next(trial.reason for trial in results.trials if trial.setting == results.default and trial.reason)
        raise OperatorError(f"configure's default, {results.default.describe()}, could not be measured: {reason}")
    score = statistics.median_low(map(objective.score, ours))
    scores = {
        setting: statistics.median_low(map(objective.score, theirs))
        for setting, theirs in blocks.items()
        if min(len(theirs), len(ours)) >= MIN_ROUNDS
    }
    choice = results.default
    sentences = [f"The default of configure, {choice.describe()}: {shown(*ours)}."]
    if scores:
        best = max(scores, key=lambda setting: (is_apart(objective, blocks[setting], ours), scores[setting]))
        gain = scores[best][1] / score[1] if scores[best][0] == score[0] and score[1] else None
        is_better = is_apart(objective, blocks[best], ours) and (gain is None or gain >= MIN_GAIN)
        choice = best if is_better else choice
        verdict = "in every block" if is_better else "so the default is kept"
        if not is_better and scores[best] > score:
            verdict = "within noise, " + verdict
        sentences += [
            f"The best other setting, {best.describe()}: {shown(*blocks[best])}.",
            f"It {_against(objective, scores[best], score, gain)} the default, {verdict}.",
        ]
    else:
        why = "the others failed, or --minutes is too short"
        sentences.append(f"No other setting was measured {MIN_ROUNDS} times ({why}), so the default is kept.")
    is_met = scores.get(choice, score)[0] == MET
    if not is_met:
        sentences.append(f"No setting meets the objective, {objective.describe()}; the nearest is chosen.")
    return Outcome(choice, is_met, (f"Chosen: {choice.describe()}.", *sentences))


def is_apart(objective: Objective, better: list[LoadResult], worse: list[LoadResult]) -> bool:
    """Say whether every block of one setting is better than every block of another; one block of it says nothing."""
    if min(len(better), len(worse)) < MIN_ROUNDS:
        return False
    return min(map(objective.score, better)) > max(map(objective.score, worse))


def _against(objective: Objective, ours: tuple[int, float], theirs: tuple[int, float], gain: float | None) -> str:
    if gain is None:
        return "comes nearer to the objective than" if ours > theirs else "is farther from the objective than"
    is_of_rate = ours[0] == 0 or (ours[0] == MET and objective.rate is None)
    return f"has {gain:.2f} times {'the requests per second' if is_of_rate else 'as low a p99'} of"
