from __future__ import annotations

import pytest

from ts_handlers.operate.tune.space import BATCH_SIZES, Bounds, Setting, candidates, cross, max_workers

DEFAULT = Setting(workers=4, threads=1, batch_size=8, max_batch_delay_ms=1)
BOUNDS = Bounds(cpus=4.0, max_workers=100, max_batch_size=16)


def test_the_default_is_first_and_nothing_comes_twice() -> None:
    settings = candidates(DEFAULT, BOUNDS)
    assert settings[0] == DEFAULT
    assert len(set(settings)) == len(settings)
    assert settings == candidates(DEFAULT, BOUNDS)
    assert settings != candidates(DEFAULT, BOUNDS, seed=1)


def test_the_first_settings_differ_from_the_default_on_one_axis_each_axis_in_turn() -> None:
    def differing(setting: Setting) -> str:
        axes = {
            "shape": (setting.workers, setting.threads) != (DEFAULT.workers, DEFAULT.threads),
            "batch": setting.batch_size != DEFAULT.batch_size,
            "delay": setting.max_batch_delay_ms != DEFAULT.max_batch_delay_ms,
        }
        return "+".join(name for name, differs in axes.items() if differs)

    near = [differing(setting) for setting in candidates(DEFAULT, BOUNDS)[1:7]]
    assert set(near) == {"shape", "batch", "delay"}


@pytest.mark.parametrize("cpus", [0.5, 1.0, 2.0, 3.9, 8.0, 64.0])
def test_more_threads_than_cpus_come_from_workers_with_one_thread_only(cpus: float) -> None:
    whole = max(1, int(cpus))
    settings = candidates(Setting(whole, 1, 8, 1), Bounds(cpus, max_workers=1000, max_batch_size=32))
    assert {setting.workers for setting in settings} >= {1, whole, 2 * whole}
    assert all(
        setting.workers * setting.threads <= whole or (setting.threads == 1 and setting.workers <= 2 * whole)
        for setting in settings
    )


def test_memory_bounds_the_workers_and_concurrency_the_batch() -> None:
    settings = candidates(Setting(2, 1, 2, 1), Bounds(cpus=16.0, max_workers=3, max_batch_size=4))
    assert max(setting.workers for setting in settings) <= 3
    assert {setting.batch_size for setting in settings} == {1, 2, 4}


def test_a_handler_of_another_kind_takes_its_share_of_the_cpus() -> None:
    settings = candidates(DEFAULT, Bounds(4.0, 100, 16, is_threads_free=False))
    assert {(setting.workers, setting.threads) for setting in settings} == {
        (4, 1),
        (8, 1),
        (2, 2),
        (3, 1),
        (6, 1),
        (1, 4),
    }


def test_a_batch_of_one_never_waits_so_its_delay_is_one_setting() -> None:
    ones = [setting for setting in candidates(DEFAULT, BOUNDS) if setting.batch_size == 1]
    assert {setting.max_batch_delay_ms for setting in ones} == {DEFAULT.max_batch_delay_ms}


def test_an_unusual_default_is_part_of_every_axis() -> None:
    settings = candidates(Setting(4, 1, 24, 7), BOUNDS)
    assert {setting.batch_size for setting in settings} == {*[s for s in BATCH_SIZES if s <= 16], 24}
    assert {setting.max_batch_delay_ms for setting in settings} == {1, 5, 7, 20}


def test_the_best_of_each_axis_are_crossed() -> None:
    ranked = [
        Setting(8, 1, 16, 1),  # differs on two axes: it says nothing of either
        Setting(4, 1, 16, 1),
        Setting(8, 1, 8, 1),
        DEFAULT,
        Setting(4, 1, 8, 20),
        Setting(4, 1, 4, 1),
    ]
    assert cross(DEFAULT, ranked) == Setting(8, 1, 16, 1)
    assert cross(DEFAULT, [DEFAULT, *ranked]) == DEFAULT


def test_workers_are_bounded_by_memory() -> None:
    assert max_workers(8 * 2**30, 600 * 2**20) == 10
    assert max_workers(2**20, 2**30) == 1


def test_a_setting_is_said_in_words() -> None:
    assert Setting(1, 2, 8, 5).describe() == "1 worker x 2 threads, batch 8, delay 5 ms"
    assert Setting(2, 1, 1, 5).describe() == "2 workers x 1 thread, batch 1"
