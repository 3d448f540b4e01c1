"""The dashboards for Grafana: structure, references, and queries that use series there are.

No Grafana runs here.  Whether each query gives data is asked of a real Prometheus in `e2e/test_prometheus.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_deploy_fleet import series_of_a_worker

ROOT = Path(__file__).resolve().parents[1]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}

# Panels that come with Grafana 10 and later, and the options each must have for what is drawn to be what was meant.
PANELS = {
    "row": set(),
    "stat": {"reduceOptions", "colorMode", "graphMode", "textMode", "orientation", "justifyMode"},
    "timeseries": {"legend", "tooltip"},
    "state-timeline": {"mergeValues", "showValue", "legend", "tooltip"},
    "heatmap": {"calculate", "color", "yAxis", "tooltip", "legend"},
    "table": {"showHeader", "cellHeight", "sortBy"},
}
# Units of Grafana's list that are used here: a misspelt one is shown as text behind every number.
UNITS = {"none", "short", "bytes", "decbytes", "s", "dtdurations", "cps", "percentunit"}

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    return DASHBOARDS[name]["panels"]


def expressions(name: str) -> list[str]:
    of_panels = [target["expr"] for panel in panels(name) for target in panel.get("targets", ())]
    return of_panels + [each["expr"] for each in DASHBOARDS[name]["annotations"]["list"]]


def test_the_files_are_what_the_script_writes() -> None:
    script = ROOT / "tools" / "make_dashboards.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(DASHBOARDS) == {"fleet", "stream", "operations", "workers"}


@each_dashboard
def test_panels_are_of_known_kinds_with_the_options_of_their_kind(name: str) -> None:
    for panel in panels(name):
        assert PANELS[panel["type"]] <= set(panel.get("options", {})), panel["title"]
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            unit = panel["fieldConfig"]["defaults"].get("unit", "none")
            of_fields = [
                p["value"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "unit"
            ]
            assert {unit, *of_fields} <= UNITS


@each_dashboard
def test_identifiers_are_unique_and_every_panel_has_a_title_of_its_own(name: str) -> None:
    assert sorted(panel["id"] for panel in panels(name)) == list(range(1, len(panels(name)) + 1))
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    assert all(titles)
    for panel in panels(name):
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)


@each_dashboard
def test_panels_fill_the_grid_without_overlapping(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(name):
        place = panel["gridPos"]
        assert set(place) == {"h", "w", "x", "y"}
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height  # no holes, either


@each_dashboard
def test_everything_reads_from_the_chosen_data_source(name: str) -> None:
    dashboard = DASHBOARDS[name]
    source = {"type": "prometheus", "uid": "${datasource}"}
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    asks = [*others, *dashboard["annotations"]["list"], *(p for p in panels(name) if p["type"] != "row")]
    asks += [target for panel in panels(name) for target in panel.get("targets", ())]
    assert all(each["datasource"] == source for each in asks)


@each_dashboard
def test_queries_use_variables_and_series_that_exist(name: str) -> None:
    variables = {each["name"] for each in DASHBOARDS[name]["templating"]["list"]}
    builtin = {"__rate_interval", "__url_time_range", "__data", "__all"}
    text = json.dumps(DASHBOARDS[name])
    named = set(re.findall(r"\$\{?(\w+)", text))
    assert named - builtin <= variables | {"instance", "stream", "datasource"}
    asked = " ".join(expressions(name))
    series = set(re.findall(r"\b(?:gon_edge|process)_\w+", asked))
    assert series
    assert series <= series_of_a_worker()
    in_queries = set(re.findall(r"\$(\w+)", asked))
    assert in_queries - builtin <= variables
    recorded = [panel for panel in panels(name) if panel.get("repeat")]
    assert all(panel["repeat"] in variables for panel in recorded)


def test_links_lead_to_a_dashboard() -> None:
    known = {each["uid"] for each in DASHBOARDS.values()}
    linked = set(re.findall(r"/d/([\w-]+)", json.dumps(DASHBOARDS)))
    assert linked
    assert linked <= known


def test_tables_rename_columns_that_they_have() -> None:
    for name in DASHBOARDS:
        for panel in panels(name):
            if panel["type"] != "table":
                continue
            (organize,) = (t["options"] for t in panel["transformations"] if t["id"] == "organize")
            columns = {f"Value #{target['refId']}" for target in panel["targets"]}
            hidden = set(organize["excludeByName"])
            assert columns <= set(organize["renameByName"]) | hidden, panel["title"]
            shown = set(organize["renameByName"].values())
            formatted = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
            assert formatted | {each["displayName"] for each in panel["options"]["sortBy"]} <= shown


def test_what_is_provisioned_fits_together() -> None:
    folder = GRAFANA / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "gon-edge.yaml").read_text())
    assert [(each["type"], each["uid"]) for each in sources["datasources"]] == [
        ("prometheus", "prometheus"),
        ("alertmanager", "alertmanager"),
    ]
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    interval = sources["datasources"][0]["jsonData"]["timeInterval"]
    assert interval == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "gon-edge.yaml").read_text())["providers"]
    assert provider["options"]["path"] in (ROOT / "docs" / "dashboards.md").read_text()
