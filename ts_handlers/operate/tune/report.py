"""report.html: one page, without network, of what was tried and what came of it. Results in, HTML out."""

from __future__ import annotations

import html
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from types import ModuleType
from typing import Any

from ts_handlers.operate.tune.objective import Measurement, mean
from ts_handlers.operate.tune.results import Outcome, Results, Trial
from ts_handlers.operate.tune.space import Setting
from ts_handlers.optional import import_optional

REPORT_NAME = "report.html"

_LOG_RATIO = 8
"""Latencies that differ more than so many times are drawn on a logarithmic axis."""

_AFTER_ALL = 1000
"""Sort value of the final comparison among the rounds."""

_COLUMNS = (
    "workers",
    "threads",
    "batch",
    "delay (ms)",
    "round",
    "time (s)",
    "requests/s",
    "p50 (ms)",
    "p90 (ms)",
    "p99 (ms)",
    "errors",
    "start (s)",
    "result",
)


def report_page(results: Results) -> str:
    """Return the page.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    template = string.Template(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        model=html.escape(results.subject.model),
        verdict="".join(f"<p>{html.escape(sentence)}</p>" for sentence in conclusion(results)),
        cards=_cards(results),
        final=_final_section(results),
        head="".join(
            f'<th scope="col" aria-sort="none"><button type="button">{html.escape(name)}</button></th>'
            for name in _COLUMNS
        ),
        rows="\n".join(_row(trial, results) for trial in results.trials),
        facts=_facts(results),
        chart=_script_json(chart(results)),
        plotly=import_plotly().get_plotlyjs(),
    )


def conclusion(results: Results) -> list[str]:
    """Return what came of the search, in sentences; for people, without markup."""
    outcome = results.outcome
    if outcome is None:
        return [f"The search was not finished: {results.num_settings} settings were tried so far."]
    sentences = [f"Chosen: {outcome.choice.describe()}."]
    if outcome.verdict is None:
        sentences.append(_without_comparison(outcome, results))
    else:
        gain = outcome.verdict.describe_gain()
        sentences += [
            f"The best other setting, {_describe(outcome.contender)}: {_figures(results, outcome.contender)}.",
            f"The default of configure, {_describe(results.default)}: {_figures(results, results.default)}.",
            f"Measured in turn, twice each{f', the first has {gain}' if gain else ''}: {outcome.verdict.reason}.",
        ]
    if not outcome.is_met:
        sentences.append(f"No setting meets the objective, {results.objective.describe()}; the nearest is chosen.")
    return sentences


def latest(results: Results) -> dict[Setting, Measurement]:
    """Return the best-founded measurement of each setting: the final's blocks together, else the longest round's."""
    found: dict[Setting, Measurement] = {}
    for trial in results.trials:  # rounds come in order, the final last
        if trial.measured is not None:
            found[trial.setting] = trial.measured
    for setting in {trial.setting for trial in results.final}:
        blocks = [trial.measured for trial in results.final if trial.setting == setting and trial.measured]
        if blocks:
            found[setting] = mean(blocks)
    return found


def pareto_front(measured: Iterable[Measurement]) -> list[tuple[float, float]]:
    """Return (p99 in ms, requests per second) of those that no other beats in both, by p99."""
    front: list[tuple[float, float]] = []
    for each in sorted(measured, key=lambda each: (each.p99_ms, -each.requests_per_second)):
        if not front or each.requests_per_second > front[-1][1]:
            front.append((each.p99_ms, each.requests_per_second))
    return front


def chart(results: Results) -> dict[str, Any]:
    """Return what plotly draws; colours are the page's, by the `role` of each trace."""
    points = latest(results)
    choice = results.outcome.choice if results.outcome else None
    default = results.default
    name = "default, chosen" if choice == default else "chosen"
    groups = {
        ("tried", "tried"): [setting for setting in points if setting not in {choice, default}],
        ("default", "configure's default"): [setting for setting in points if setting == default != choice],
        ("chosen", name): [setting for setting in points if setting == choice],
    }
    front = pareto_front(points.values())
    traces: list[dict[str, Any]] = [
        {
            "role": "front",
            "name": "Pareto front",
            "mode": "lines",
            "x": [p99 for p99, _ in front],
            "y": [rate for _, rate in front],
            "line": {"shape": "hv", "width": 2},
            "hoverinfo": "skip",
        }
    ]
    traces += [
        _points(role, name, {setting: points[setting] for setting in settings})
        for (role, name), settings in groups.items()
        if settings
    ]
    latencies = [measured.p99_ms for measured in points.values()]
    is_log = bool(latencies) and min(latencies) > 0 and max(latencies) / min(latencies) > _LOG_RATIO
    return {"traces": traces, "x_type": "log" if is_log else "linear", "slo_p99_ms": results.objective.slo_p99_ms}


def _points(role: str, name: str, points: Mapping[Setting, Measurement]) -> dict[str, Any]:
    symbols = {"tried": "circle", "default": "diamond", "chosen": "star"}
    return {
        "role": role,
        "name": name,
        "mode": "markers",
        "x": [measured.p99_ms for measured in points.values()],
        "y": [measured.requests_per_second for measured in points.values()],
        "text": [html.escape(setting.describe()) for setting in points],
        "hovertemplate": "%{text}<br>%{y:.1f} requests/s, p99 %{x:.1f} ms<extra></extra>",
        "marker": {"symbol": symbols[role], "size": {"tried": 9, "default": 13, "chosen": 16}[role]},
    }


def _cards(results: Results) -> str:
    points = latest(results)
    choice = results.outcome.choice if results.outcome else None
    cards = [("Settings tried", str(results.num_settings))]
    if choice in points:
        measured = points[choice]
        cards += [
            ("Chosen", choice.describe()),
            ("Requests per second", f"{measured.requests_per_second:.1f}"),
            ("p99", f"{measured.p99_ms:.1f} ms"),
        ]
    gain = results.outcome.verdict.describe_gain() if results.outcome and results.outcome.verdict else None
    if gain and choice != results.default:
        cards.append(("Against the default", gain))
    return "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in cards)


def _final_section(results: Results) -> str:
    if not results.final:
        return ""
    rows = "".join(
        f"<tr><td>{'AB'[trial.setting == results.default]}</td><td>{html.escape(trial.setting.describe())}</td>"
        + "".join(f"<td>{'failed' if value is None else f'{value:.1f}'}</td>" for value in _figures_of(trial.measured))
        + "</tr>"
        for trial in results.final
    )
    return (
        "<section id='final'><h2>The final comparison</h2>"
        "<p class='hint'>The best other setting (A) and the default (B) in turn, each time a "
        f"new server, {results.final[0].seconds:.0f} s measured.</p><div class='scroll'><table><thead><tr><th>Block</th>"
        "<th>Setting</th><th>requests/s</th><th>p50 (ms)</th><th>p90 (ms)</th><th>p99 (ms)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(trial: Trial, results: Results) -> str:
    setting, measured = trial.setting, trial.measured
    cells: list[tuple[str, float | str | None]] = [
        (str(setting.workers), setting.workers),
        (str(setting.threads), setting.threads),
        (str(setting.batch_size), setting.batch_size),
        (str(setting.max_batch_delay_ms), setting.max_batch_delay_ms),
        ("final", _AFTER_ALL) if trial.rung is None else (str(trial.rung + 1), trial.rung),
        (f"{trial.seconds:.0f}", trial.seconds),
        *((f"{value:.1f}" if value is not None else "", value) for value in _figures_of(measured)),
        (str(measured.num_errors), measured.num_errors) if measured else ("", None),
        (f"{trial.start_s:.1f}", trial.start_s) if trial.start_s else ("", None),
        (_result(trial, results), _result(trial, results)),
    ]
    kind = " class='failed'" if measured is None else " class='chosen'" if _is_choice(trial, results) else ""
    values = "".join(  # what cannot be compared has no value to sort by, and comes last
        f'<td data-value="{"" if value is None else html.escape(str(value))}">{html.escape(text)}</td>'
        for text, value in cells
    )
    return f"<tr{kind}>{values}</tr>"


def _result(trial: Trial, results: Results) -> str:
    if trial.measured is None:
        return f"failed: {trial.reason}"
    words = ["default"] if trial.setting == results.default else []
    words += ["chosen"] if _is_choice(trial, results) else []
    is_bound = results.objective.slo_p99_ms is not None or results.objective.rate is not None
    words += ["misses the objective"] if is_bound and not results.objective.is_met(trial.measured) else []
    return ", ".join(words)


def _is_choice(trial: Trial, results: Results) -> bool:
    return results.outcome is not None and trial.setting == results.outcome.choice


def _figures_of(measured: Measurement | None) -> Sequence[float | None]:
    if measured is None:
        return (None, None, None, None)
    return (measured.requests_per_second, measured.p50_ms, measured.p90_ms, measured.p99_ms)


def _facts(results: Results) -> str:
    subject = results.subject
    load = ", ".join(f"{name} {value:g}" for name, value in subject.load.items() if value is not None)
    facts = {
        "looked for": results.objective.describe(),
        **subject.machine,
        "load": f"{load}; from this same machine, so that the client's CPU time is part of every figure",
        "archive": f"SHA-256 {subject.archive_sha256}",
        "payloads": f"SHA-256 {subject.payloads_sha256}",
    }
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in facts.items()
    )


def _without_comparison(outcome: Outcome, results: Results) -> str:
    if results.final:
        measured: list[Setting | None] = [trial.setting for trial in results.final if trial.measured]
        return (
            f"The final comparison needs two measured blocks of each: {_describe(outcome.contender)} had "
            f"{measured.count(outcome.contender)}, the default of configure {measured.count(results.default)}; so "
            "nothing was compared."
        )
    if outcome.choice == results.default:
        return "No other setting could be measured to the end, so nothing was compared."
    return "The default of configure could not be measured to the end, so nothing was compared."


def _describe(setting: Setting | None) -> str:
    return setting.describe() if setting else "none"


def _figures(results: Results, setting: Setting | None) -> str:
    """Return the figures of the final comparison's blocks of a setting, together and each."""
    blocks = [trial.measured for trial in results.final if trial.measured and trial.setting == setting]
    together = mean(blocks)
    each = " and ".join(f"{block.requests_per_second:.1f}" for block in blocks)
    return f"{together.requests_per_second:.1f} requests/s ({each}) with a p99 of {together.p99_ms:.1f} ms"


def _script_json(value: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends one."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def import_plotly() -> ModuleType:
    """Import what brings plotly's script.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    return import_optional("plotly.offline", "the report is drawn with plotly", extra="operate")
