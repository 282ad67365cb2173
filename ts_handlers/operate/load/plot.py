"""A page with the latency of a block over time: one HTML file that needs no network."""

from __future__ import annotations

import html
from types import ModuleType
from typing import Any

from ts_handlers.operate.load.result import LoadResult
from ts_handlers.optional import import_optional

_P50_COLOR, _P90_COLOR, _P99_COLOR, _ERROR_COLOR = "#1f6fb4", "#7a7a7a", "#c8641e", "#c22f3d"


def import_plotly() -> ModuleType:
    """Import plotly's figures.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    import_optional("plotly.graph_objects", "pages are drawn with plotly", extra="operate")
    return import_optional("plotly.subplots", "pages are drawn with plotly", extra="operate")


def latency_page(result: LoadResult, title: str) -> str:
    """Return an HTML page: median and 99th percentile of each interval, those of the whole block, answers and errors.

    Args:
        result: The block of load.
        title: Plain text above the plot.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    figure = _draw(result)
    subtitle = f"{result.describe_loop()}, {result.duration_s:.1f} s; {next(result.describe())}"
    figure.update_layout(
        title={"text": html.escape(title), "subtitle": {"text": html.escape(subtitle)}},
        template="plotly_white",
        barmode="stack",
        hovermode="x unified",
        height=720,
        margin={"t": 110},
    )
    figure.update_yaxes(title_text="latency (ms)", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="seconds since the end of the warm-up", row=2, col=1)
    page: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)


def _draw(result: LoadResult) -> Any:
    figure = import_plotly().make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
    )
    points = result.timeline
    starts_s = [point.start_s for point in points]
    for name, values, color in (
        ("p50 of an interval", [point.p50_ms for point in points], _P50_COLOR),
        ("p99 of an interval", [point.p99_ms for point in points], _P99_COLOR),
    ):
        line, marker = {"color": color}, {"size": 4}
        figure.add_scatter(
            x=starts_s, y=values, name=name, mode="lines+markers", line=line, marker=marker, row=1, col=1
        )
    ends_s = [*starts_s[1:], result.duration_s]
    lengths_s = [max(end - start, 1e-9) for start, end in zip(starts_s, ends_s, strict=True)] if points else []
    for name, counts, color in (
        ("answered", [point.num_ok for point in points], _P50_COLOR),
        ("errors", [point.num_errors for point in points], _ERROR_COLOR),
    ):
        rates = [count / length for count, length in zip(counts, lengths_s, strict=True)]
        bar = {"color": color}
        figure.add_bar(x=starts_s, y=rates, width=lengths_s, offset=0, name=name, marker=bar, row=2, col=1)
    for name, value_ms, color in (
        ("p50", result.p50_ms, _P50_COLOR),
        ("p90", result.p90_ms, _P90_COLOR),
        ("p99", result.p99_ms, _P99_COLOR),
    ):
        if value_ms is not None:
            text = f"{name} of all: {value_ms:.1f} ms"
            figure.add_hline(value_ms, line_color=color, line_dash="dot", annotation_text=text, row=1, col=1)
    return figure
