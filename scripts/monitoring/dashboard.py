"""The Grafana dashboard, made with Grafana's own SDK."""

from __future__ import annotations

import itertools

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphDrawStyle, LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring.panels import ROWS, Panel

_DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_MODELS = "model:ts_workers_loaded:count"
_ALL = VariableOption(text="All", value="$__all", selected=True)


def dashboard_json() -> str:
    """Return the dashboard as Grafana imports it."""
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(_build().build())
    return f"{text}\n"


def _build() -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard("TorchServe")
        .uid("torchserve")
        .description("TorchServe with ts_handlers. Its rules and traps: docs/monitoring.md.")
        .tags(["torchserve", "ts-handlers"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", f"label_values({_MODELS}, namespace)"))
        .with_variable(_variable("model", "Model", f'label_values({_MODELS}{{namespace=~"$namespace"}}, model_name)'))
    )
    ids = itertools.count(1)
    for title, panels in ROWS:
        board = board.with_row(dashboard.Row(title).id(next(ids)))
        for panel in panels:
            board = board.with_panel(_timeseries(panel).id(next(ids)))
    return board


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(_ALL)
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(_DATASOURCE)
        .unit(panel.unit)
        .min(0)
        .span(panel.width)
        .height(8)
        .line_width(1)
        .fill_opacity(10)
        .draw_style(GraphDrawStyle.LINE)
        .legend(legend.display_mode(LegendDisplayMode.LIST))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if panel.unit == "percentunit":
        built = built.max(1)
    for number, (expression, name) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(name).range().ref_id(chr(ord("A") + number))
        built = built.with_target(query)
    return built
