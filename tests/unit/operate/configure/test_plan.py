from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operate.configure.written import values_of
from ts_handlers.build.report import BuildReport
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.options import Options
from ts_handlers.operate.configure.plan import Plan, make_plan
from ts_handlers.operate.torchserve.archives import Archive

GIB = 2**30


def archive(name: str, version: str = "1.0", settings: Mapping[str, Any] | None = None) -> Archive:
    return Archive(Path(f"{name}-{version}.mar"), name, version, settings)


def plan(
    *archives: Archive,
    cpus: float = 2,
    memory_bytes: int = 8 * GIB,
    reports: Mapping[tuple[str, str], BuildReport] | None = None,
    **options: Any,
) -> Plan:
    return make_plan(archives, cpus, Options(**options), memory_bytes=memory_bytes, reports=reports)


def report(name: str, **values: Any) -> dict[tuple[str, str], BuildReport]:
    return {(name, "1.0"): BuildReport(**values)}


def workers(decided: Plan) -> list[int]:
    return [model.min_workers for model in decided.models]


@pytest.mark.parametrize(
    ("cpus", "num_models", "expected"),
    [
        (2, 1, [2]),
        (0.5, 1, [1]),
        (2.9, 1, [2]),
        (2, 2, [1, 1]),
        (5, 2, [3, 2]),
        (2, 3, [1, 1, 1]),
        (8, 3, [3, 3, 2]),
        (64, 1, [64]),
    ],
)
def test_there_is_a_worker_for_each_whole_cpu_shared_evenly(cpus: float, num_models: int, expected: list[int]) -> None:
    decided = plan(*(archive(f"m{number}") for number in range(num_models)), cpus=cpus)

    assert workers(decided) == expected
    assert [model.max_workers for model in decided.models] == expected


@given(cpus=st.floats(0.1, 512), num_models=st.integers(1, 20))
def test_workers_fill_the_budget_and_never_exceed_it_but_for_one_each(cpus: float, num_models: int) -> None:
    decided = plan(*(archive(f"m{number}") for number in range(num_models)), cpus=cpus)

    assert decided.num_workers == max(num_models, int(cpus))
    assert max(workers(decided)) - min(workers(decided)) <= 1


def test_workers_can_be_asked_for() -> None:
    assert workers(plan(archive("a"), archive("b"), cpus=2, workers=3)) == [3, 3]


def test_with_gpus_there_is_a_worker_of_each_model_on_each() -> None:
    decided = plan(archive("a"), archive("b"), cpus=16, gpus=2)

    assert workers(decided) == [2, 2]
    assert decided.gpus == 2


def test_an_archive_that_sets_its_workers_keeps_them_and_the_others_share_the_rest() -> None:
    settings = {"minWorkers": 3, "maxWorkers": 4}
    decided = plan(archive("a", settings=settings), archive("b"), archive("c"), cpus=8, workers=None)

    assert workers(decided) == [3, 3, 2]
    assert decided.models[0].max_workers == 4
    assert {"minWorkers", "maxWorkers"} <= set(decided.models[0].fixed)


def test_workers_of_a_yaml_that_torchserve_ignores_are_ignored() -> None:
    assert workers(plan(archive("a", settings={"minWorkers": 3, "maxWorkers": 1}), cpus=2)) == [2]


def test_defaults_wait_for_no_batch() -> None:
    model = plan(archive("a")).models[0]

    assert (model.batch_size, model.max_batch_delay_ms) == (8, 1)
    assert (model.response_timeout_s, model.startup_timeout_s) == (120, 300)
    assert model.fixed == ()


def test_what_a_yaml_sets_wins_as_it_does_in_torchserve() -> None:
    settings = {"batchSize": 4, "maxBatchDelay": 20, "responseTimeout": 10}
    model = plan(archive("a", settings=settings), response_timeout_s=60, startup_timeout_s=60).models[0]

    assert (model.batch_size, model.max_batch_delay_ms) == (4, 20)
    assert (model.response_timeout_s, model.startup_timeout_s) == (10, 120)
    assert set(model.fixed) == {"batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout"}


def test_the_newest_version_is_loaded_first_and_is_the_default() -> None:
    decided = plan(archive("b"), archive("a", "1.9"), archive("a", "1.10"), archive("a", "1.2"))

    assert [(model.name, model.archive.version) for model in decided.models] == [
        ("a", "1.10"),
        ("a", "1.9"),
        ("a", "1.2"),
        ("b", "1.0"),
    ]
    assert [model.is_default for model in decided.models] == [True, False, False, True]


def test_a_pre_release_is_older_than_its_release_and_a_patch_is_newer() -> None:
    versions = ["1.0", "1.0-beta", "1.0.1", "1.0rc1", "1.0rc2", "1.1.dev", "1.0.0"]
    decided = plan(*(archive("a", version) for version in versions))

    newest_first = ["1.1.dev", "1.0.1", "1.0.0", "1.0", "1.0rc2", "1.0rc1", "1.0-beta"]
    assert [model.archive.version for model in decided.models] == newest_first


@pytest.mark.parametrize(("cpus", "expected"), [(1, 100), (4, 100), (16, 256)])
def test_the_queue_holds_two_batches_for_each_worker(cpus: float, expected: int) -> None:
    assert plan(archive("a"), cpus=cpus).job_queue_size == expected


@pytest.mark.parametrize(
    ("cpus", "netty", "client", "java", "collector"),
    [(0.5, 2, 1, 1, "Serial"), (2, 2, 1, 2, "Serial"), (3.5, 4, 2, 4, "G1"), (64, 8, 4, 64, "G1")],
)
def test_the_frontend_takes_a_small_share(cpus: float, netty: int, client: int, java: int, collector: str) -> None:
    values = values_of(plan(archive("a"), cpus=cpus))

    assert (values["number_of_netty_threads"], values["netty_client_threads"]) == (str(netty), str(client))
    assert f"-XX:ActiveProcessorCount={java} " in values["vmargs"]
    assert f"-XX:+Use{collector}GC " in values["vmargs"]


@pytest.mark.parametrize(("memory_bytes", "heap_mb"), [(GIB // 2, 256), (4 * GIB, 512), (64 * GIB, 1024)])
def test_the_heap_is_an_eighth_of_the_memory_within_bounds(memory_bytes: int, heap_mb: int) -> None:
    assert plan(archive("a"), memory_bytes=memory_bytes).memory.heap_mb == heap_mb


def test_models_share_the_cpus_by_weight() -> None:
    decided = plan(archive("a"), archive("b"), archive("c"), cpus=8, reports=report("b", weight=6))

    assert workers(decided) == [1, 6, 1]
    assert [model.report.weight for model in decided.models] == [1, 6, 1]


def test_a_budget_of_memory_leaves_fewer_workers_with_more_threads() -> None:
    decided = plan(archive("a"), cpus=8, memory_bytes=3 * GIB, reports=report("a", rss_mb=500))

    assert workers(decided) == [3]  # 3072 x 0.9 - 384 heap - 256 more = 2124.8; 650 each
    assert decided.threads == 2
    assert decided.needed_mb == pytest.approx(1950)
    assert "The CPUs would take 8, the memory holds 3: each has 2 threads instead." in decided.reason


@given(
    cpus=st.floats(1, 64),
    memory_mb=st.integers(1024, 65536),
    rss=st.lists(st.floats(1, 100), min_size=1, max_size=5),
    weights=st.lists(st.floats(0.1, 10), min_size=5, max_size=5),
)
def test_what_is_planned_fits_into_the_memory(
    cpus: float, memory_mb: int, rss: list[float], weights: list[float]
) -> None:
    reports = {
        (f"m{number}", "1.0"): BuildReport(rss_mb=size, weight=weights[number]) for number, size in enumerate(rss)
    }
    archives = [archive(f"m{number}") for number in range(len(rss))]
    try:
        decided = plan(*archives, cpus=cpus, memory_bytes=memory_mb * 2**20, reports=reports)
    except OperatorError:
        assert sum(rss) * 1.3 > memory_mb * 0.9 - max(256, min(memory_mb // 8, 1024)) - 256
    else:
        assert decided.needed_mb <= decided.memory.usable_mb
        assert len(rss) <= decided.num_workers <= max(len(rss), int(cpus))


def test_workers_that_were_asked_for_are_not_cut() -> None:
    with pytest.raises(OperatorError, match=r"3 x a 1\.0 need 1950 MiB .* 1331 are left"):
        plan(archive("a"), workers=3, memory_bytes=2 * GIB, reports=report("a", rss_mb=500))


def test_a_model_without_a_report_is_not_counted_and_named() -> None:
    decided = plan(archive("a"), archive("b"), reports=report("a", rss_mb=300))

    assert decided.needed_mb == pytest.approx(390)
    assert "No build report says how much memory b 1.0 takes: not counted." in decided.reason


@pytest.mark.parametrize(
    ("archives", "options", "message"),
    [
        ([archive("a"), archive("b")], {}, r"1 x a 1\.0, 1 x b 1\.0 need 650 MiB .* of 1024 MiB 410 are left"),
        ([archive("a")], {"workers": 2}, r"2 x a 1\.0 need 1300 MiB"),
        ([archive("a")], {"gpus": 2}, r"2 x a 1\.0 need 1300 MiB"),
        ([archive("a", settings={"minWorkers": 3, "maxWorkers": 3})], {}, r"3 x a 1\.0 need 1950 MiB"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    archives: list[Archive], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperatorError, match=f"the workers do not fit into the memory: {message}"):
        plan(*archives, cpus=8, memory_bytes=GIB, reports=report("a", rss_mb=500), **options)


@pytest.mark.parametrize(
    ("cpus", "latency_ms", "expected", "threads"),
    [(2, 20, 1, 2), (4, 20, 1, 4), (8, 20, 2, 4), (6, 20, 2, 3), (8, None, 2, 4), (8, 3.85, 8, 1), (0.5, 20, 1, 1)],
)
def test_for_latency_a_worker_has_threads_where_a_request_gains_from_them(
    cpus: float, latency_ms: float | None, expected: int, threads: int
) -> None:
    calls = {} if latency_ms is None else {"1x24": latency_ms}
    decided = plan(archive("a"), cpus=cpus, profile="latency", reports=report("a", latency_ms=calls))

    assert workers(decided) == [expected]
    assert decided.threads == threads


def test_for_latency_batches_and_queues_are_small() -> None:
    decided = plan(archive("a"), cpus=8, profile="latency")

    assert (decided.models[0].batch_size, decided.models[0].max_batch_delay_ms) == (1, 1)
    assert decided.job_queue_size == 16


def test_what_is_asked_for_goes_before_the_profile() -> None:
    decided = plan(archive("a"), cpus=8, profile="latency", workers=3, batch_size=4, max_batch_delay_ms=5)

    assert workers(decided) == [3]
    assert (decided.models[0].batch_size, decided.models[0].max_batch_delay_ms) == (4, 5)
    assert decided.job_queue_size == 96


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minWorkers": 10**9, "maxWorkers": 10**9}, "1000000000 workers .* are more than 1024"),
        ({"batchSize": 10**7}, "batches of 10000000 requests are more than 4096"),
    ],
)
def test_absurd_numbers_of_an_archive_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        plan(archive("a", settings=settings))


def test_absurdly_many_workers_are_refused() -> None:
    with pytest.raises(OperatorError, match="4000 workers"):
        plan(archive("a"), cpus=4000)


@pytest.mark.parametrize("cpus", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_budget_that_is_none_is_refused(cpus: float) -> None:
    with pytest.raises(OperatorError, match="CPU budget"):
        plan(archive("a"), cpus=cpus)
