"""A page with the latency of a block over time: one HTML file that needs no network."""

from __future__ import annotations

import html
from types import ModuleType
from typing import Any

from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.load.text import describe_loop, describe_result
from ts_handlers.optional import import_optional

_P50_COLOR, _P90_COLOR, _P99_COLOR, _ERROR_COLOR = "#1f6fb4", "#7a7a7a", "#c8641e", "#c22f3d"
_DASH = "dot"


def import_plotly() -> ModuleType:
    """Import plotly's figures.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    _import("plotly.subplots")
    return _import("plotly.graph_objects")


def latency_page(result: LoadResult, title: str) -> str:
    """Return an HTML page: median and 99th percentile of each interval, those of the whole block, answers and errors.

    Args:
        result: The block of load.
        title: Plain text above the plot.

    Raises:
        RuntimeUnavailableError: plotly is not installed.
    """
    graph_objects = import_plotly()
    figure = _import("plotly.subplots").make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
    )
    figure.add_traces(_latencies(graph_objects, result), rows=1, cols=1)
    figure.add_traces(_rates(graph_objects, result), rows=2, cols=1)
    for name, value_ms, color in (
        ("p50", result.p50_ms, _P50_COLOR),
        ("p90", result.p90_ms, _P90_COLOR),
        ("p99", result.p99_ms, _P99_COLOR),
    ):
        if value_ms is not None:
            text = f"{name} of all: {value_ms:.1f} ms"
            figure.add_hline(y=value_ms, line={"color": color, "dash": _DASH}, annotation_text=text, row=1, col=1)
    figure.update_layout(
        title={"text": html.escape(title), "subtitle": {"text": html.escape(_subtitle(result))}},
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


def _subtitle(result: LoadResult) -> str:
    return f"{describe_loop(result)}, {result.duration_s:.1f} s; {next(describe_result(result))}"


def _latencies(graph_objects: ModuleType, result: LoadResult) -> list[Any]:
    starts_s = [point.start_s for point in result.timeline]
    lines = {
        "p50 of an interval": ([point.p50_ms for point in result.timeline], _P50_COLOR),
        "p99 of an interval": ([point.p99_ms for point in result.timeline], _P99_COLOR),
    }
    return [
        graph_objects.Scatter(
            x=starts_s, y=values, name=name, mode="lines+markers", line={"color": color}, marker={"size": 4}
        )
        for name, (values, color) in lines.items()
    ]


def _rates(graph_objects: ModuleType, result: LoadResult) -> list[Any]:
    starts_s = [point.start_s for point in result.timeline]
    ends_s = [*starts_s[1:], result.duration_s]
    lengths_s = [max(end - start, 1e-9) for start, end in zip(starts_s, ends_s, strict=True)]
    bars = {
        "answered": ([point.num_ok for point in result.timeline], _P50_COLOR),
        "errors": ([point.num_errors for point in result.timeline], _ERROR_COLOR),
    }
    return [
        graph_objects.Bar(
            x=starts_s,
            y=[count / length for count, length in zip(counts, lengths_s, strict=True)],
            width=lengths_s,
            offset=0,
            name=name,
            marker={"color": color},
        )
        for name, (counts, color) in bars.items()
    ]


def _import(module: str) -> ModuleType:
    return import_optional(module, "pages are drawn with plotly", extra="operate")
