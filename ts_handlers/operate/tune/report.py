"""report.html: one page, without network, of what was tried and what came of it. Results in, HTML out."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from ts_handlers.operate.load.plot import import_plotly
from ts_handlers.operate.tune.results import MET, Results, Setting, Trial

REPORT_NAME = "report.html"

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{model}: ts-handlers tune</title>
<style>
body {{ max-width: 1100px; margin: 2em auto; padding: 0 1em; font: 15px/1.5 system-ui, sans-serif; }}
table {{ border-collapse: collapse; margin-bottom: 2em; }}
th, td {{ padding: 4px 10px; border-bottom: 1px solid #ccc; text-align: left; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{model}, tuned</h1>
{conclusion}
{chart}
<h2>Every trial</h2>
<div id="trials">{trials}</div>
<h2>The machine and the load</h2>
<p>The load comes from this same machine, so that the client's CPU time is part of every figure.</p>
{conditions}
</body>
</html>
"""

_HEAD = ("round", "setting", "requests/s", "p50 (ms)", "p90 (ms)", "p99 (ms)", "errors", "start (s)", "result")


def report_page(results: Results) -> str:
    """Return the page.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    conditions = {"looked for": results.objective.describe(), **results.measured_on}
    num_settings = len({trial.setting for trial in results.trials})
    unfinished = f"The search was not finished: {num_settings} settings were tried so far."
    sentences = results.outcome.sentences if results.outcome else (unfinished,)
    chart = _figure(results)
    return _PAGE.format(
        model=html.escape(results.measured_on["model"]),
        conclusion="\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences),
        chart=chart.to_html(full_html=False, include_plotlyjs=True, div_id="chart", config={"displaylogo": False}),
        trials=_table([_HEAD, *(_row(trial, results) for trial in results.trials)]),
        conditions=_table(conditions.items()),
    )


def _figure(results: Results) -> Any:
    """Return requests per second over p99: a colour for each setting, a point for each of its trials."""
    figure = import_plotly().make_subplots()
    for setting, blocks in results.blocks().items():
        x, y = [block.p99_ms for block in blocks], [block.requests_per_second for block in blocks]
        name = ", ".join((setting.describe(), *_roles(setting, results)))
        figure.add_scatter(x=x, y=y, name=name, mode="markers", marker={"size": 10})
    bound_ms = results.objective.slo_p99_ms
    if bound_ms is not None:
        figure.add_vline(bound_ms, line_dash="dash", annotation_text=f"p99 bound {bound_ms:g} ms")
    figure.update_layout(template="plotly_white", height=480, showlegend=True)
    figure.update_xaxes(title_text="p99 latency (ms)", rangemode="tozero")
    figure.update_yaxes(title_text="requests per second", rangemode="tozero")
    return figure


def _roles(setting: Setting, results: Results) -> list[str]:
    is_chosen = results.outcome is not None and setting == results.outcome.choice
    return ["default"] * (setting == results.default) + ["chosen"] * is_chosen


def _row(trial: Trial, results: Results) -> list[str]:
    words = _roles(trial.setting, results)
    figures = [""] * 6
    if trial.measured is None:
        words.append(f"failed: {trial.reason}")
    else:
        names = ("requests_per_second", "p50_ms", "p90_ms", "p99_ms")
        figures = [f"{getattr(trial.measured, name) or 0:.1f}" for name in names]
        figures += [str(trial.measured.num_errors), f"{trial.start_s:.1f}"]
        words += [] if results.objective.score(trial.measured)[0] == MET else ["misses the objective"]
    of_it = [each for each in results.trials if each.setting == trial.setting]
    return [str(of_it.index(trial) + 1), trial.setting.describe(), *figures, ", ".join(words)]


def _table(rows: Iterable[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return "<table>\n" + "\n".join(f"<tr>{row}</tr>" for row in cells) + "\n</table>"
