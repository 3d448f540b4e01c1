"""Which Grafana dashboards are there?  Writes `deploy/grafana/dashboards/*.json`; edit here, never there.

    python tools/make_dashboards.py            # write them
    python tools/make_dashboards.py --check    # status 1 when a file is not what this script would write

A dashboard is a list of rows of panels; where a panel stands follows from its size.  A new series is drawn by adding a
query here; `tests/test_dashboards.py` looks at the structure, `tests/e2e/test_prometheus.py` asks a real Prometheus.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards"
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid
GREEN, YELLOW, RED, BLUE, GREY = "green", "#EAB839", "red", "blue", "#808080"

ON = '{instance=~"$instance"}'
OF = '{instance=~"$instance",stream="$stream"}'


# -- panels ------------------------------------------------------------------------------------------------------------


def query(expr: str, legend: str = "__auto", **more: Any) -> Json:
    """One query over time; `instant=True, format="table"` for tables, `format="heatmap"` for heat maps."""
    instant = bool(more.pop("instant", False))
    return {
        "expr": expr,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
        "editorMode": "code",
        **more,
    }


def panel(kind: str, title: str, queries: list[Json], width: int, height: int = 8, **more: Any) -> Json:
    """A panel without its place; `more` holds `defaults` and `overrides` of its fields, `options`, and the rest."""
    targets = [{"refId": chr(65 + i), "datasource": SOURCE, **target} for i, target in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": more.pop("text", ""),
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "fieldConfig": {"defaults": more.pop("defaults", {}), "overrides": more.pop("overrides", [])},
        "options": more.pop("options", {}),
        "targets": targets,
        **more,
    }


def steps(*limits: tuple[float | None, str]) -> Json:
    """Colours from a value on; the first limit is `None`."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in limits]}


def values(**texts: tuple[str, str]) -> list[Json]:
    """What to write instead of a number, and in which colour: `values(v0=("normal", GREEN))`."""
    return [
        {
            "type": "value",
            "options": {
                name[1:]: {"text": text, "color": colour, "index": i}
                for i, (name, (text, colour)) in enumerate(texts.items())
            },
        }
    ]


def named(name: str, **properties: Any) -> Json:
    """Properties of one field, by name."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def matching(pattern: str, **properties: Any) -> Json:
    """Properties of fields whose name matches a regular expression."""
    return {**named("", **properties), "matcher": {"id": "byRegexp", "options": pattern}}


def stat(title: str, expr: str, width: int, *, unit: str = "none", colours: Json | None = None, **more: Any) -> Json:
    """One number, large."""
    defaults = {"unit": unit, "thresholds": colours or steps((None, BLUE)), "mappings": more.pop("mappings", [])}
    defaults |= {
        "color": {"mode": "thresholds"},
        "noValue": more.pop("empty", "–"),
        "decimals": more.pop("decimals", None),
    }
    fields = more.pop("fields", "")
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": fields, "values": False},
        "colorMode": "background_solid" if colours else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": more.pop("text_mode", "auto"),
    }
    target = query(expr, more.pop("legend", "__auto"), instant=True, **more.pop("query", {}))
    return panel("stat", title, [target], width, more.pop("height", 4), defaults=defaults, options=options, **more)


def graph(title: str, queries: list[Json], width: int, *, unit: str = "none", **more: Any) -> Json:
    """Lines over time."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": more.pop("interpolation", "linear"),
        "lineWidth": 1,
        "fillOpacity": more.pop("fill", 0),
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": more.pop("stack", "none"), "group": "A"},
    }
    if more.pop("bars", False):
        custom |= {"drawStyle": "bars", "fillOpacity": 80}
    if colours := more.pop("colours", None):
        custom["thresholdsStyle"] = {"mode": "dashed"}
    defaults = {"unit": unit, "min": more.pop("low", None), "max": more.pop("high", None), "custom": custom}
    defaults["thresholds"] = colours or steps((None, GREEN))
    defaults["color"] = {"mode": "palette-classic"}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, queries, width, defaults=defaults, options=options, **more)


def timeline(title: str, queries: list[Json], width: int, mappings: list[Json], **more: Any) -> Json:
    """What state something was in."""
    defaults = {"mappings": mappings, "custom": {"fillOpacity": 80, "lineWidth": 0}, "thresholds": steps((None, GREY))}
    defaults["color"] = {"mode": "thresholds"}
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, queries, width, defaults=defaults, options=options, **more)


def heat(title: str, metric: str, width: int, **more: Any) -> Json:
    """A histogram over time."""
    expr = f"sum by (le) (increase({metric}_bucket{ON}[$__rate_interval]))"
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64,
                  "reverse": False, "fill": "dark-orange"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"unit": "s", "axisPlacement": "left", "reverse": False},
        "cellValues": {"unit": "short"},
    }  # fmt: skip
    defaults = {"custom": {"scaleDistribution": {"type": "linear"}}}
    return panel("heatmap", title, [query(expr, "{{le}}", format="heatmap")], width, defaults=defaults,
                 options=options, **more)  # fmt: skip


def table(title: str, queries: list[Json], width: int, height: int, rename: dict[str, str], **more: Any) -> Json:
    """One row for each set of labels; `rename` also chooses the columns and their order.

    Queries must aggregate to labels they share: rows whose labels differ, by the name of a metric alone, stay apart.
    """
    queries = [{**target, "instant": True, "range": False, "format": "table"} for target in queries]
    organize = {
        "excludeByName": {"Time": True, **more.pop("hide", {})},
        "indexByName": {name: i for i, name in enumerate(rename)},
        "renameByName": rename,
    }
    return panel(
        "table",
        title,
        queries,
        width,
        height,
        defaults={"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False},
                  "color": {"mode": "thresholds"}, "thresholds": steps((None, GREEN))},
        options={"showHeader": True, "cellHeight": "sm", "sortBy": more.pop("sort", [])},
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        **more,
    )  # fmt: skip


# -- dashboards --------------------------------------------------------------------------------------------------------


def variable(name: str, label: str, series: str, *, multi: bool = False, **more: Any) -> Json:
    """A choice among the values of a label."""
    text = f"label_values({series}, {more.pop('of', name)})"
    choice = {"text": "All", "value": "$__all"} if multi else None
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": text, "refId": name},
        "refresh": 2,  # with the time range: streams come and go
        "sort": 7,  # natural order
        "multi": multi,
        "includeAll": multi,
        "current": choice,
        "options": [],
        "hide": 0,
        **more,
    }


def dashboard(uid: str, title: str, text: str, variables: list[Json], rows: list[Any], **more: Any) -> Json:
    """Put panels in their places: a string is the title of a row, a list stands side by side."""
    panels: list[Json] = []
    y = 0
    for row in rows:
        if isinstance(row, str):
            place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
            panels.append({"type": "row", "title": row, "collapsed": False, "gridPos": place, "panels": []})
            y += 1
            continue
        x = 0
        for each in row:
            each["gridPos"] |= {"x": x, "y": y}
            x += each["gridPos"]["w"]
            panels.append(each)
        y += max(each["gridPos"]["h"] for each in row)
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "options": [],
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
    }
    link = {"type": "dashboards", "title": "gon-edge", "tags": ["gon-edge"], "asDropdown": True, "includeVars": True,
            "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}  # fmt: skip
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["gon-edge"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one cross hair for all panels
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [link],
        "templating": {"list": [source, *variables]},
        "annotations": {"list": more.pop("annotations", [])},
        "panels": [{"id": i + 1, **each} for i, each in enumerate(panels)],
    }


INSTANCE = variable("instance", "Device", "gon_edge_build_info", multi=True)
ALERTS = values(
    v0=("normal", GREEN),
    v1=("sensor missing", YELLOW),
    v2=("overdue", YELLOW),
    v3=("drift", "orange"),
    v4=("another state", "orange"),
    v5=("anomaly", RED),
)
_RANKS = {"anomaly": 5, "changed": 4, "drift": 3, "overdue": 2, "missing": 1}


def open_alerts(more: str = "") -> str:
    """The worst open alert of each stream, as `ALERTS` names them; ``more`` narrows the series down."""
    ranked = (
        f'{rank} * gon_edge_alert_active{{kind="{kind}",instance=~"$instance"{more}}}' for kind, rank in _RANKS.items()
    )
    return f"max without (kind) ({' or '.join(ranked)})"


TO_STREAM = [
    {
        "title": "Show this stream",
        "url": "/d/gon-edge-stream?var-instance=${__data.fields.Device}&var-stream=${__data.fields.Stream}"
        "&${datasource:queryparam}&${__url_time_range}",
        "targetBlank": False,
    }
]


def fleet() -> Json:
    """Every device and stream at a glance."""
    bad = steps((None, GREEN), (1, RED))
    wary = steps((None, GREEN), (1, YELLOW))
    streams = table(
        "All streams",
        [
            # NaN while a stream warms up: an empty cell says that better.
            query(f"max by (instance, stream) (gon_edge_anomaly_score{ON} / gon_edge_anomaly_threshold{ON}) > -Inf"),
            query(f"max by (instance, stream) ({open_alerts()})"),
            query(f"max by (instance, stream) (gon_edge_missing_features{ON})"),
            query(f"time() - max by (instance, stream) (gon_edge_last_row_timestamp_seconds{ON})"),
            query(f"time() - max by (instance, stream) (gon_edge_model_trained_timestamp_seconds{ON})"),
        ],
        24,
        9,
        {"instance": "Device", "stream": "Stream", "Value #B": "Alert", "Value #A": "Score / threshold",
         "Value #C": "Missing sensors", "Value #D": "Last row", "Value #E": "Model age"},
        sort=[{"displayName": "Score / threshold", "desc": True}],
        overrides=[
            named("Alert", mappings=ALERTS, custom__cellOptions={"type": "color-background", "mode": "basic"},
                  thresholds=steps((None, GREEN), (1, RED))),
            named("Score / threshold", decimals=2, custom__cellOptions={"type": "color-text"},
                  thresholds=steps((None, GREEN), (0.9, YELLOW), (1, RED))),
            named("Last row", unit="dtdurations", decimals=0),
            named("Model age", unit="dtdurations", decimals=0),
            named("Stream", links=TO_STREAM),
        ],
        text="Of a replayed recording the last row is as old as the recording.",
    )  # fmt: skip
    devices = table(
        "Devices",
        [
            query(f"max by (instance, version, arch) (gon_edge_build_info{ON})"),
            query(f"max by (instance) (process_resident_memory_bytes{ON} and on (job, instance) gon_edge_build_info)"),
            query(f"time() - max by (instance) (process_start_time_seconds{ON} and on (job, instance) "
                  "gon_edge_build_info)"),
            query(f"max by (instance) (gon_edge_mqtt_connected{ON})"),
            query(f"sum by (instance) (rate(gon_edge_messages_total{ON}[5m]))"),
        ],
        24,
        7,
        {"instance": "Device", "version": "Version", "arch": "Machine", "Value #D": "Broker", "Value #B": "Memory",
         "Value #C": "Up for", "Value #E": "Messages"},
        hide={"Value #A": True},
        overrides=[
            named("Broker", mappings=values(v0=("away", RED), v1=("connected", GREEN)),
                  custom__cellOptions={"type": "color-text"}),
            named("Memory", unit="bytes"),
            named("Up for", unit="dtdurations", decimals=0),
            named("Messages", unit="cps", decimals=1),
        ],
    )  # fmt: skip
    return dashboard(
        "gon-edge-fleet",
        "gon-edge: fleet",
        "Every device and stream at a glance: what is wrong, and where.",
        [INSTANCE],
        [
            [
                stat("Reachable", 'count(up{job="gon-edge",instance=~"$instance"} == 1) or vector(0)', 2),
                stat("Not reachable", 'count(up{job="gon-edge",instance=~"$instance"} == 0) or vector(0)', 3,
                     colours=bad),
                stat("Without broker", f"count(gon_edge_mqtt_connected{ON} == 0) or vector(0)", 3, colours=bad),
                stat("Streams", f"count(gon_edge_rows_total{ON})", 2),
                stat("Silences", f"sum(gon_edge_silences{ON})", 2),
                stat("Scoring", 'sum(gon_edge_stream_state{state="scoring",instance=~"$instance"})', 2),
                stat("Silent", 'sum(gon_edge_stream_state{state="stale",instance=~"$instance"})', 2, colours=wary),
                stat("Anomalies", 'sum(gon_edge_alert_active{kind="anomaly",instance=~"$instance"})', 3, colours=bad),
                stat("Drifts", 'sum(gon_edge_alert_active{kind="drift",instance=~"$instance"})', 2, colours=wary),
                stat("Sensors missing", 'sum(gon_edge_alert_active{kind="missing",instance=~"$instance"})', 3,
                     colours=wary),
            ],
            [streams],
            [devices],
            [
                graph("Score on one scale: 1 is the threshold",
                      [query(f"topk(20, gon_edge_anomaly_score{ON} / gon_edge_anomaly_threshold{ON})",
                             "{{stream}} ({{instance}})")],
                      12, low=0, colours=steps((None, "transparent"), (1, RED)),
                      text="The twenty highest. Scores of two models are on two scales; this ratio is not."),
                timeline("Alerts", [query(open_alerts(), "{{stream}} ({{instance}})")], 12, ALERTS),
            ],
            [
                graph("Messages", [query(f"sum by (instance) (rate(gon_edge_messages_total{ON}[$__rate_interval]))",
                                         "{{instance}}")], 12, unit="cps", low=0),
                graph("Alerts opened", [query(f"sum by (stream, kind) (increase(gon_edge_alerts_total{ON}"
                                              "[$__rate_interval]))", "{{stream}}: {{kind}}")],
                      12, bars=True, stack="normal", low=0),
            ],
        ],
    )  # fmt: skip


def stream() -> Json:
    """One stream: is it normal, since when not, and why."""
    feature = variable(
        "feature", "Feature", f"gon_edge_anomaly_contribution_ratio{OF}", multi=True, allValue=".*",
        description="Features that contributed to an anomaly in this time range.",
    )  # fmt: skip
    annotations = [
        annotation("Alerts", f"gon_edge_alert_active{OF} == 1", RED, "{{kind}}", "{{stream}} on {{instance}}"),
        annotation("New model", f"gon_edge_model_trained_timestamp_seconds{OF} * 1000", BLUE, "new model",
                   "{{stream}} on {{instance}}", useValueForTime=True),
    ]  # fmt: skip
    return dashboard(
        "gon-edge-stream",
        "gon-edge: stream",
        "One stream: is it normal, since when not, and why.",
        [
            variable("instance", "Device", "gon_edge_rows_total"),
            variable("stream", "Stream", f"gon_edge_rows_total{ON}"),
            feature,
        ],
        [
            [
                stat("State", f"gon_edge_stream_state{OF} == 1", 3, legend="{{state}}", text_mode="name"),
                stat("Alert", open_alerts(',stream="$stream"'), 4, mappings=ALERTS,
                     colours=steps((None, GREEN), (1, RED))),
                stat("Score / threshold", f"gon_edge_anomaly_score{OF} / gon_edge_anomaly_threshold{OF}", 4,
                     decimals=2, colours=steps((None, GREEN), (0.9, YELLOW), (1, RED)), empty="no model yet"),
                stat("Missing sensors", f"gon_edge_missing_features{OF}", 3,
                     colours=steps((None, GREEN), (1, YELLOW)), empty="no model yet"),
                stat("Model", f"gon_edge_model_info{OF}", 3, legend="{{version}}", text_mode="name", empty="none yet"),
                stat("Model age", f"time() - gon_edge_model_trained_timestamp_seconds{OF}", 4, unit="dtdurations",
                     decimals=0, empty="no model yet"),
                stat("Rows", f"gon_edge_rows_total{OF}", 3, unit="short"),
            ],
            [
                graph("Score against its threshold",
                      [query(f"gon_edge_anomaly_score{OF}", "score"),
                       query(f"gon_edge_anomaly_threshold{OF}", "threshold")],
                      24, low=None,
                      overrides=[named("threshold", color={"mode": "fixed", "fixedColor": RED},
                                       custom__lineStyle={"fill": "dash", "dash": [10, 10]})],
                      text="High is anomalous. Red regions are open alerts, blue marks new models, whose scores are on "
                           "a scale of their own."),
            ],
            "Causes",
            [
                graph("Share of each feature in the score",
                      [query(f"gon_edge_anomaly_contribution_ratio{OF}", "{{feature}}")],
                      12, unit="percentunit", fill=60, stack="normal", low=0, high=1,
                      text="The five largest, while the newest row is anomalous."),
                table("Causes now: read and expected",
                      [query(f"max by (feature) (gon_edge_anomaly_value{OF})"),
                       query(f"max by (feature) (gon_edge_anomaly_expected_value{OF})"),
                       query(f"max by (feature) (gon_edge_anomaly_contribution_ratio{OF})")],
                      12, 8,
                      {"feature": "Feature", "Value #A": "Reads", "Value #B": "Expected", "Value #C": "Share"},
                      sort=[{"displayName": "Share", "desc": True}],
                      overrides=[named("Share", unit="percentunit", decimals=0,
                                       custom__cellOptions={"type": "gauge", "mode": "basic"}, min=0, max=1)],
                      text="Empty while the stream is normal."),
            ],
            [
                graph("$feature: read and expected",
                      [query('gon_edge_anomaly_value{instance=~"$instance",stream="$stream",feature=~"$feature"}',
                             "{{feature}}"),
                       query('gon_edge_anomaly_expected_value{instance=~"$instance",stream="$stream",'
                             'feature=~"$feature"}', "{{feature}} expected")],
                      24, repeat="feature", repeatDirection="h", maxPerRow=3,
                      overrides=[matching(".* expected$", custom__lineStyle={"fill": "dash", "dash": [6, 6]})],
                      text="While it was among the causes of an anomaly, in its own unit."),
            ],
            "Supply",
            [
                graph("Rows a second", [query(f"rate(gon_edge_rows_total{OF}[$__rate_interval])", "rows")], 8,
                      unit="cps", low=0),
                timeline("State over time",
                         [query('sum by (state) (gon_edge_stream_state{instance=~"$instance",stream="$stream"})',
                                "{{state}}")],
                         8, values(v0=(" ", "transparent"), v1=("yes", BLUE))),
                graph("Trainings", [query(f"increase(gon_edge_retrain_rounds_total{OF}[$__rate_interval])",
                                          "{{outcome}}")], 8, bars=True, stack="normal", low=0),
            ],
        ],
        annotations=annotations,
    )  # fmt: skip


def annotation(name: str, expr: str, colour: str, title: str, text: str, **more: Any) -> Json:
    """Marks on every graph of a dashboard."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "15s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        **more,
    }


def operations() -> Json:
    """gon-edge itself: memory, latency, queue, broker, disk."""
    return dashboard(
        "gon-edge-operations",
        "gon-edge: operations",
        "gon-edge itself: memory, latency, queue, broker, disk.",
        [INSTANCE],
        [
            "Memory",
            [
                graph("Resident memory of the daemon",
                      [query(f"process_resident_memory_bytes{ON} and on (job, instance) gon_edge_build_info",
                             "{{instance}}")],
                      12, unit="bytes", low=0),
                graph("Training: peak against its budget",
                      [query(f"gon_edge_retrain_peak_memory_bytes{ON}", "peak {{instance}}"),
                       query(f"gon_edge_memory_budget_bytes{ON}", "budget {{instance}}")],
                      12, unit="bytes", low=0,
                      overrides=[matching("budget .*", custom__lineStyle={"fill": "dash", "dash": [10, 10]})],
                      text="Of the last training, in a process of its own. 0 before the first."),
            ],
            "Training",
            [
                graph("Trainings that run or wait",
                      [query(f"sum by (instance) (gon_edge_retrain_running{ON})", "running {{instance}}"),
                       query(f"sum by (wait) (gon_edge_retrain_waiting{ON})", "waiting: {{wait}}")],
                      8, stack="normal", low=0,
                      text="place: others run. heat, load, battery: retrain.max_temperature, max_load, on_battery. "
                           "retry: it is about to begin, another process trains, or the disk refuses its files."),
                graph("Trainings",
                      [query(f"sum by (outcome) (increase(gon_edge_retrain_rounds_total{ON}[$__rate_interval]))",
                             "{{outcome}}")], 8, bars=True, stack="normal", low=0),
                graph("Time a training takes",
                      [query(f"sum by (instance) (gon_edge_retrain_duration_seconds_sum{ON}) / "
                             f"(sum by (instance) (gon_edge_retrain_duration_seconds_count{ON}) > 0)",
                             "mean {{instance}}")], 8, unit="s", low=0),
            ],
            "Latency",
            [
                heat("From a message to its verdict", "gon_edge_ingest_to_verdict_seconds", 12,
                     text="Without rows that waited for the first model."),
                heat("Time to score a row", "gon_edge_scoring_duration_seconds", 12),
            ],
            [
                graph("From a message to its verdict, quantiles",
                      [query("histogram_quantile(0.5, sum by (instance, le) "
                             f"(rate(gon_edge_ingest_to_verdict_seconds_bucket{ON}[$__rate_interval])))",
                             "half {{instance}}"),
                       query("histogram_quantile(0.99, sum by (instance, le) "
                             f"(rate(gon_edge_ingest_to_verdict_seconds_bucket{ON}[$__rate_interval])))",
                             "99 % {{instance}}")], 12, unit="s", low=0),
                graph("Processor time", [query(f"rate(process_cpu_seconds_total{ON}[$__rate_interval]) "
                                               "and on (job, instance) gon_edge_build_info", "{{instance}}")],
                      12, unit="percentunit", low=0, text="1 is one core."),
            ],
            "Messages",
            [
                graph("Messages by what became of them",
                      [query(f"sum by (result) (rate(gon_edge_messages_total{ON}[$__rate_interval]))", "{{result}}")],
                      8, unit="cps", low=0, stack="normal", fill=40),
                graph("Refused messages and unusable values, by reason",
                      [query(f"sum by (reason) (increase(gon_edge_messages_rejected_total{ON}[$__rate_interval])) > 0",
                             "message: {{reason}}"),
                       query(f"sum by (reason) (increase(gon_edge_readings_masked_total{ON}[$__rate_interval])) > 0",
                             "value: {{reason}}")], 8, low=0, bars=True, stack="normal"),
                graph("Queue", [query(f"gon_edge_queue_length{ON}", "{{instance}}")], 8, low=0,
                      text="Messages received and not yet scored; beyond mqtt.queue_messages the oldest go."),
            ],
            "Broker",
            [
                timeline("Connection", [query(f"gon_edge_mqtt_connected{ON}", "{{instance}}")], 12,
                         values(v0=("away", RED), v1=("connected", GREEN))),
                graph("Connections lost, by reason",
                      [query(f"sum by (reason) (increase(gon_edge_mqtt_reconnects_total{ON}[$__rate_interval]))",
                             "{{reason}}")], 8, bars=True, stack="normal", low=0),
                stat("Alert events lost", f"sum(gon_edge_mqtt_events_dropped_total{ON}) + "
                     f"sum(gon_edge_mqtt_publications_lost_total{ON})", 4,
                    height=8,
                     colours=steps((None, GREEN), (1, RED))),
            ],
            "Disk",
            [
                graph("Written to storage",
                      [query(f"rate(gon_edge_disk_written_bytes_total{ON}[1h]) * 86400", "{{instance}}")],
                      12, unit="decbytes", low=0, colours=steps((None, "transparent"), (50e6, RED)),
                      text="At the pace of the last hour, bytes a day. SD cards wear by them."),
                graph("Failed writes of the state",
                      [query(f"increase(gon_edge_store_write_errors_total{ON}[$__rate_interval])", "{{instance}}")],
                      6, bars=True, low=0),
                stat("Configuration", f"min(gon_edge_config_last_reload_successful{ON})", 3, height=8,
                     mappings=values(v0=("refused", RED), v1=("in use", GREEN)),
                     colours=steps((None, RED), (1, GREEN)), text="What the last reload found."),
                stat("Clock steps", f"sum(gon_edge_clock_steps_total{ON})", 3, height=8,
                     colours=steps((None, GREEN), (1, YELLOW)),
                     text="A clock was set: this machine's, or that of a device."),
            ],
        ],
    )  # fmt: skip


def workers() -> Json:
    """The workers of a fleet on NATS: who owns what, how far behind, what moved."""
    late = steps((None, GREEN), (1, YELLOW), (60, RED))
    owners = table(
        "Partitions",
        [
            query(f"max by (partition, instance) (gon_edge_fleet_partition_owned{ON} == 1)"),
            query(f"max by (partition, instance) (gon_edge_fleet_partition_streams{ON})"),
            query(f"max by (partition, instance) (gon_edge_fleet_partition_lag_messages{ON})"),
            query(f"max by (partition, instance) (gon_edge_fleet_partition_epoch{ON})"),
        ],
        12,
        12,
        {"partition": "Partition", "instance": "Worker", "Value #B": "Streams", "Value #C": "Messages wait",
         "Value #D": "Takeovers"},
        hide={"Value #A": True},
        sort=[{"displayName": "Messages wait", "desc": True}],
        text="A partition that is in the list twice has just moved, or its owner stands still.",
    )  # fmt: skip
    return dashboard(
        "gon-edge-workers",
        "gon-edge: workers of a fleet",
        "Partitions and their owners, what waits, what moved, and what is written to JetStream.",
        [INSTANCE],
        [
            [
                stat("Workers", f"count(gon_edge_fleet_nats_connected{ON})", 4),
                stat("Without NATS", f"count(gon_edge_fleet_nats_connected{ON} == 0)", 4, empty="0",
                     colours=steps((None, GREEN), (1, RED))),
                stat("Streams", f"sum(gon_edge_fleet_partition_streams{ON})", 4),
                stat("Messages a second", f"sum(rate(gon_edge_fleet_messages_total{ON}[1m]))", 4, decimals=0),
                stat("Messages wait", f"sum(gon_edge_fleet_partition_lag_messages{ON})", 4,
                     colours=steps((None, GREEN), (1000, YELLOW), (100000, RED))),
                stat("Nobody owns", f"count(max by (partition) (gon_edge_fleet_partition_owned{ON}) == 0)", 4,
                     empty="0", colours=steps((None, GREEN), (1, RED))),
            ],
            [
                owners,
                timeline("Who owns it", [query(f"max by (partition) (gon_edge_fleet_partition_owned{ON})",
                                               "{{partition}}")], 12,
                         values(v0=("nobody", RED), v1=("owned", GREEN)), height=12),
            ],
            "What waits, and for how long",
            [
                graph("Messages of a partition that wait",
                      [query(f"max by (partition) (gon_edge_fleet_partition_lag_messages{ON})", "{{partition}}")],
                      8, low=0),
                graph("Time to work it off",
                      [query(f"sum(gon_edge_fleet_partition_lag_messages{ON}) / "
                             f"sum(rate(gon_edge_fleet_messages_total{ON}[1m]))", "at the pace of now")], 8,
                      unit="s", low=0, colours=late),
                graph("From a message to its verdict, 99 %",
                      [query("histogram_quantile(0.99, sum by (instance, le) "
                             f"(rate(gon_edge_ingest_to_verdict_seconds_bucket{ON}[$__rate_interval])))",
                             "{{instance}}")], 8, unit="s", low=0),
            ],
            "What moved",
            [
                graph("Takeovers",
                      [query(f"sum by (instance) (increase(gon_edge_fleet_takeovers_total{ON}[$__rate_interval]))",
                             "{{instance}}")], 6, bars=True, stack="normal", low=0),
                graph("Partitions lost before they were left",
                      [query(f"sum by (instance) (increase(gon_edge_fleet_lost_total{ON}[$__rate_interval]))",
                             "{{instance}}")], 6, bars=True, stack="normal", low=0),
                graph("Messages judged again",
                      [query(f"sum by (instance) (increase(gon_edge_fleet_redelivered_total{ON}[$__rate_interval]))",
                             "{{instance}}")], 6, bars=True, stack="normal", low=0),
                graph("How long the newest takeover took", [query(f"gon_edge_fleet_takeover_seconds{ON}",
                                                                  "{{instance}}")], 6, unit="s", low=0),
            ],
            "What a worker costs",
            [
                graph("Memory", [query(f"process_resident_memory_bytes{ON} and on (job, instance) "
                                       "gon_edge_fleet_nats_connected", "{{instance}}")], 8, unit="bytes", low=0),
                graph("Processor time", [query(f"rate(process_cpu_seconds_total{ON}[$__rate_interval]) "
                                               "and on (job, instance) gon_edge_fleet_nats_connected",
                                               "{{instance}}")], 8, unit="percentunit", low=0, text="1 is one core."),
                graph("States written to JetStream, bytes a day",
                      [query(f"rate(gon_edge_fleet_states_saved_bytes_total{ON}[$__rate_interval]) * 86400",
                             "{{instance}}")], 8, unit="decbytes", low=0),
            ],
            "Alerts and trainings",
            [
                graph("Events told", [query(f"sum by (result) (increase(gon_edge_fleet_events_total{ON}"
                                            "[$__rate_interval]))", "{{result}}"),
                                      query(f"sum(increase(gon_edge_fleet_events_forwarded_total{ON}"
                                            "[$__rate_interval]))", "sent to the broker")], 12, bars=True, low=0),
                graph("Trainings carried out",
                      [query(f"sum by (instance) (increase(gon_edge_fleet_trainings_total{ON}[$__rate_interval]))",
                             "{{instance}}")], 6, bars=True, stack="normal", low=0),
                stat("Writes refused", f"sum(gon_edge_fleet_writes_refused_total{ON})", 6, height=8,
                     text="Of workers that no longer owned what they wrote: refused, as it should be."),
            ],
        ],
    )  # fmt: skip


def dashboards() -> dict[str, str]:
    """File name to content."""
    made = {"fleet": fleet(), "stream": stream(), "operations": operations(), "workers": workers()}
    return {f"{name}.json": json.dumps(_without_none(each), indent=2) + "\n" for name, each in made.items()}


def _without_none(value: Any, *, keep: bool = False) -> Any:
    """Leave out options at their default; the first step of thresholds is null on purpose."""
    if isinstance(value, dict):
        return {
            key: _without_none(each, keep=key == "steps")
            for key, each in value.items()
            if each is not None or (keep and key == "value")
        }
    return [_without_none(each, keep=keep) for each in value] if isinstance(value, list) else value


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, end with 1 when a file differs")
    check = parser.parse_args().check
    FOLDER.mkdir(parents=True, exist_ok=True)
    wrong = [name for name, text in dashboards().items() if not same(FOLDER / name, text)]
    for name in wrong:
        if check:
            print(f"{name} is not what {Path(__file__).name} writes; run it", file=sys.stderr)
        else:
            (FOLDER / name).write_text(dashboards()[name])
    return 1 if check and wrong else 0


def same(path: Path, text: str) -> bool:
    """Whether a file holds this text."""
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
