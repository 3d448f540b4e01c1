"""The status page as somebody sees it: a real browser, a real daemon, a real broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.publish
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from snapshots import ALERT, plain_snapshot, readings

from e2e.daemons import FEATURES, DaemonProcess, rows
from e2e.servers import Mosquitto, require, wait_until
from gon_edge.config.schema import HttpConfig
from gon_edge.events import Row
from gon_edge.links.snapshot import Snapshot, StreamSnapshot
from gon_edge.links.web.api import Days, nothing_stored
from gon_edge.links.web.server import WebServer
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.columns import Held
from gon_edge.stream.history import READING_BUCKETS
from gon_edge.stream.ledger import Entry
from gon_edge.training.gate import GateReport, GateScores

sync_api = pytest.importorskip("playwright.sync_api") if os.environ.get("CI") != "true" else None
if sync_api is None:
    from playwright import sync_api
expect = sync_api.expect

pytestmark = pytest.mark.e2e

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1180, "height": 900}
HOSTILE = "<img src=x onerror=document.title='owned'><b>"
PATIENCE_MS = 15_000
NOW = 1_700_000_400.0  # where a half minute ends
KINDS = ("band", "usual", "day", "range", "measured", "expected")

# The WCAG contrast of every text that is seen against what is painted behind it, the lowest with its text.
LOWEST_CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (c) => c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let lowest = [21, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    if (!text || !node.checkVisibility() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < lowest[0]) lowest = [contrast, text];
  }
  return lowest;
}"""

# The same of a line against the card it is drawn on.
STROKE_CONTRAST = """(path) => {
  const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => c <= 10 ? c / 255 / 12.92
    : ((c / 255 + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * c, 0);
  const line = document.querySelector(path);
  const [a, b] = [light(getComputedStyle(line).stroke), light(getComputedStyle(line.closest(".card")).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = require("chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which every complaint of the browser fails the test, save requests that got no answer."""
    context = browser.new_context(viewport=DESKTOP, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning") and "ERR_" not in message.text
            else None
        ),
    )
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, Mosquitto]]:
    """A daemon whose stream `pump` is scored, calm so far; training takes seconds, so it is one for all."""
    folder = tmp_path_factory.mktemp("pump")
    broker = Mosquitto(folder / "broker").start()
    try:
        with DaemonProcess(folder, broker).connected() as daemon:
            past = list(rows(440))
            broker.publish_lines("telemetry/pump", past[:420])
            daemon.wait_for_state("pump", "scoring")
            broker.publish_lines("telemetry/pump", past[420:])  # not kept waiting by a training: they have a latency
            wait_until(lambda: len(daemon.stream("pump")["scores"]) == 120, 20, "the scores")
            yield daemon, broker
    finally:
        broker.kill()


@pytest.fixture
def fresh(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon that knows no stream yet."""
    with DaemonProcess(tmp_path, mosquitto).connected() as daemon:
        yield daemon


def address(daemon: DaemonProcess) -> str:
    return f"http://127.0.0.1:{daemon.port}/"


def says(locator: Any, text: str | re.Pattern[str]) -> None:
    expect(locator).to_contain_text(text, timeout=PATIENCE_MS)


def card(page: Any, stream: str) -> Any:
    return page.get_by_role("article", name=stream, exact=True)


def is_as_wide_as_the_screen(page: Any) -> bool:
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return wide


def send(broker: Mosquitto, messages: dict[str, str]) -> None:
    paho.mqtt.publish.multiple(list(messages.items()), "127.0.0.1", broker.port)


def test_a_healthy_stream_shows_score_threshold_and_model(page: Any, pump: tuple[DaemonProcess, Mosquitto]) -> None:
    daemon, _ = pump
    page.goto(address(daemon))
    says(page.locator("#summary"), "All normal")
    says(page.locator("#broker"), "connected to mqtt://")
    says(page.locator("#latency"), re.compile(r"\d m?s, 95 % within"))
    shown = card(page, "pump")
    says(shown, re.compile(r"normal.*score, threshold \d"))
    label = shown.get_by_role("img", name="Score").get_attribute("aria-label")
    assert re.match(r"Score over the last \d+ (s|min): newest .*, highest .*, threshold \d", label)
    assert len(shown.locator("path.line").get_attribute("d").split("L")) > 8
    version = daemon.stream("pump")["model_version"]
    models = page.get_by_role("region", name="Models")
    says(models.get_by_role("row").nth(1), re.compile(rf"pump.*passed model {re.escape(version)}, in use.*rows.*MiB"))
    says(
        models.locator("summary"),
        re.compile(r"Measured by the gate for pump: [\d.]+ % of the rows it learned abnormal"),
    )
    models.locator("summary").click()
    says(models.locator("dl"), re.compile(r"A score takes.*m?s.*File.*KiB"))
    shown.locator("summary").click()
    says(shown, re.compile(r"Gate\s*passed: [\d.]+ % of the rows it learned abnormal"))
    expect(page.locator("#active-section")).to_be_hidden()
    for feature in FEATURES:
        drawn = shown.get_by_role(
            "img", name=re.compile(rf"^{feature} over the last .*: newest .*, lowest .*, highest ")
        )
        expect(drawn.locator("path.measured")).to_have_attribute("d", re.compile(r"^M.*L"))
        expect(drawn.locator("path.usual")).to_have_attribute("d", re.compile(r"^M0 "))


@contextmanager
def served(snapshot: Snapshot, days: Days = nothing_stored) -> Iterator[str]:
    """A page about this snapshot; yields its address."""
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=lambda: snapshot, registry=CollectorRegistry(), days=days)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def alarmed() -> Snapshot:
    """A stream with 30 features, of which two are to blame; it read from 0 to 119, and was expected at 5 of late."""
    names = (HOSTILE, *(f"sensor-{i}" for i in range(29)))
    low = [[float(bucket)] * len(names) for bucket in range(READING_BUCKETS)]
    expected = [[5.0 if bucket > 100 else float("nan")] * len(names) for bucket in range(READING_BUCKETS)]
    causes = [
        {"feature": name, "value": 119.0, "expected": 5.0, "contribution": share}
        for name, share in ((HOSTILE, 0.7), ("sensor-20", 0.3))
    ]
    held = dict.fromkeys(names, Held(119.0, 1.0))
    stream = StreamSnapshot("pump", "scoring", 9000, 600, score=6.0, threshold=2.0, last_timestamp=1.7e9, features=held)
    return plain_snapshot(
        streams=(stream,),
        alerts=({**ALERT, "since": 1.7e9 - 600, "top_features": causes},),
        readings={"pump": readings("pump", names, low=low, expected=expected)},
    )


def two_days(stream: str, features: Sequence[str], end: float) -> dict[int, NDArray[np.float32]]:
    """The hour until now was at 20 yesterday, and rose from 30 to 40 two days ago."""
    rising = np.linspace(30.0, 40.0, READING_BUCKETS)
    return {
        ago: np.float32([values] * len(features)).T for ago, values in ((1, np.full_like(rising, 20.0)), (2, rising))
    }


def test_a_drift_says_how_fast_and_where_to(page: Any) -> None:
    trend = {"per_day": 0.42, "reaches": 51.5, "in_days": 9.2}
    cause = {"feature": "temp", "value": 42.3, "expected": 39.8, "contribution": 1.0, "trend": trend}
    drift = {**ALERT, "kind": "drift", "severity": "warning", "since": 1.7e9 - 600, "top_features": [cause]}
    before = {**drift, "id": "b", "type": "end", "top_features": [{**cause, "trend": {**trend, "in_days": 0.0}}]}
    stream = StreamSnapshot("pump", "scoring", 9000, 600, score=1.0, threshold=2.0, last_timestamp=1.7e9)
    past = readings("pump", ["temp"], low=[[40.0]] * READING_BUCKETS)
    with served(plain_snapshot(streams=(stream,), alerts=(drift, before), readings={"pump": past}), two_days) as url:
        page.goto(url)
        alert = page.get_by_role("region", name="Active alerts")
        says(alert.locator(".values"), "42.3, expected 39.8, rises by 0.42 a day, reaches 51.5 in about 9 days")
        says(alert.locator(".share"), "100 % of the drift")
        says(alert.locator(".chip"), "drift")
        says(page.locator("#recent .what"), "Drift: temp 42.3, expected 39.8, rises by 0.42 a day, and is beyond 51.5")


def test_streams_that_fell_silent_together_are_counted_and_so_is_the_time_without_a_broker(page: Any) -> None:
    silent = {**ALERT, "kind": "missing", "since": 1.7e9 - 600, "score": None, "threshold": None, "top_features": []}
    silent["together"] = {"count": 14, "of": 15, "streams": ["a", HOSTILE, "c", "d"]}
    ended = {**silent, "id": "b", "type": "end"}
    offline = {**ALERT, "id": "c", "kind": "offline", "stream": "", "since": 1.7e9 - 700, "top_features": []}
    away = {"seconds": 5400.0, "until": 1.7e9 - 60, "reason": "asleep"}
    with served(plain_snapshot(alerts=(silent, ended, offline), away=away)) as url:
        page.goto(url)
        alerts = page.get_by_role("region", name="Active alerts")
        says(alerts.locator(".when").first, f"14 of 15 streams fell silent together: a, {HOSTILE}, c and others")
        says(alerts.locator(".chip").last, "no broker")
        says(alerts.locator("h3").last, "gon-edge itself")
        says(page.locator("#recent .what").first, "14 of 15 streams fell silent together")
        says(page.locator("#broker"), "was away for 90 min until")
        says(page.locator("#broker"), "as this process stood still")


def test_a_stream_without_a_row_lists_its_features_what_is_not_used_and_why_it_waits(page: Any) -> None:
    held = {"flow": Held(3.2, 1.0), HOSTILE: Held(float("nan")), "energy": Held(42.0, 60.0, rises=True)}
    lost = tuple(Entry(f"label-{i}", "text", 3, HOSTILE) for i in range(70))
    waits = "the timestamps stand still"
    young = StreamSnapshot(
        "pump", "warming-up", 0, 600, features=held, counters=frozenset({"energy"}), dropped=lost, waits=waits
    )
    with served(plain_snapshot(streams=(young,)), two_days) as url:
        page.goto(url)
        says(page.locator(".stream"), "The timestamps stand still.")
        says(page.locator(".stream"), f"So far: flow 3.2, {HOSTILE} –, energy 42")
        says(page.locator(".stream"), "Not used: label-0, label-1, label-2, label-3 and 66 more")
        page.locator(".stream summary").first.click()
        lists = page.locator(".stream .keys")
        says(lists.nth(0).locator("li").nth(2), "energy42every 60 s, counter")
        says(lists.nth(1).locator("li").first, "label-0text that is no number, 3 times: " + HOSTILE)
        says(lists.nth(1).locator("li").last, "10 more, in the JSON")


def test_an_alert_draws_each_cause_against_what_was_expected_and_other_days(page: Any) -> None:
    with served(alarmed(), two_days) as url:
        page.goto(url)
        alert = page.get_by_role("region", name="Active alerts")
        says(alert.locator(".cause").nth(1), "This hour on 2 earlier days: 20 to 40")
        assert alert.locator(".feature").all_text_contents() == [HOSTILE, "sensor-20"]
        drawn = alert.get_by_role("img", name="sensor-20")
        label = drawn.get_attribute("aria-label")
        assert label == (
            "sensor-20 over the last 60 min: newest 120, lowest 0, highest 120, expected 5; "
            "this hour on 2 earlier days: 20 to 40"
        )
        path = {kind: drawn.locator(f"path.{kind}").get_attribute("d") for kind in KINDS}
        assert path["measured"].count("L") == READING_BUCKETS - 1
        assert path["range"].count("L") == 2 * READING_BUCKETS - 1  # along the highest, and back along the lowest
        assert path["day"].count("M") == 2
        assert path["expected"].count("L") == 18
        # Ten of the sixty minutes are shaded, on the right.
        assert path["band"].startswith("M500.0 0H600.0V")
        assert [float(y) for y in re.findall(r" ([\d.]+)", path["expected"])] == pytest.approx([69.0] * 19, abs=2.0)
        for words in ("measured", "expected, since", "this hour on earlier days", "where it mostly was", "the alert"):
            says(alert.locator(".key"), words)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            contrast, text = page.evaluate(LOWEST_CONTRAST)
            assert contrast >= 4.5, (scheme, text)
            for kind in ("measured", "expected"):
                assert page.evaluate(STROKE_CONTRAST, f".cause path.{kind}") >= 3.0, (scheme, kind)
        page.set_viewport_size(PHONE)
        assert is_as_wide_as_the_screen(page)
        assert drawn.bounding_box()["height"] >= 60


def test_a_daemon_knows_how_the_hour_was_on_the_days_it_has_stored(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Store.open(tmp_path / "state") as store:
        for line in rows(600, start=NOW - 86_400.0 - 600.0):
            values = json.loads(line)
            row = Row("pump", values.pop("time"), FEATURES, np.float32(list(values.values())), np.zeros(4, np.bool_))
            store.add_row(row, False, now=0.0)
        assert store.flush(1.0)
    with DaemonProcess(tmp_path, mosquitto, streams={"defaults": {"warmup_rows": 5000}}).connected() as daemon:
        mosquitto.publish_lines("telemetry/pump", rows(30, start=NOW - 30.0))
        wait_until(lambda: daemon.get("/api/v1/readings?stream=pump")[0] == 200, 20, "readings")
        status, body = daemon.get("/api/v1/days?stream=pump&feature=temperature&feature=flow")
    assert status == 200, body
    temperature, flow = json.loads(body)["features"]
    (day,) = temperature["days"]
    known = [value for value in day["values"] if value is not None]
    assert (day["ago"], len(known)) == (1, 20)
    assert known == pytest.approx([45.0] * 20, abs=2.0)
    assert flow["feature"] == "flow"


def test_a_card_shows_a_small_chart_a_feature_those_to_blame_first(page: Any) -> None:
    with served(alarmed()) as url:
        page.goto(url)
        shown = card(page, "pump")
        names = shown.locator(".readings .name")
        expect(names).to_have_count(12, timeout=PATIENCE_MS)
        assert names.all_text_contents()[:3] == [HOSTILE, "sensor-20", "sensor-0"]
        expect(shown.locator(".readings .wrong")).to_have_count(2)
        says(shown.locator(".readings .rest"), "18 more as JSON")
        assert (
            json.loads(page.request.get(url + "api/v1/readings?stream=pump").text())["features"][29]["low"][-1] == 119.0
        )
        page.set_viewport_size(PHONE)
        assert is_as_wide_as_the_screen(page)
        # No picture takes the keyboard's focus from what can be used.
        assert page.locator(".readings :focus-visible, .readings [tabindex]").count() == 0


def test_of_many_streams_a_card_shows_its_readings_when_it_is_opened(page: Any) -> None:
    names = [f"s{i:02}" for i in range(20)]
    streams = tuple(StreamSnapshot(n, "scoring", 9, 6, score=1.0, threshold=2.0, last_timestamp=1.7e9) for n in names)
    held = {name: readings(name, ("flow",), low=[[1.0], [2.0]]) for name in names}
    with served(plain_snapshot(streams=streams, readings=held)) as url:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        expect(page.locator("#streams > article")).to_have_count(20, timeout=PATIENCE_MS)
        expect(page.locator(".readings:visible")).to_have_count(0)
        card(page, "s07").locator("summary").press("Enter")
        expect(card(page, "s07").get_by_role("img", name=re.compile("^flow .*newest 3, lowest 1"))).to_be_visible()
        assert {url for url in asked if "readings" in url} == {url + "api/v1/readings?stream=s07"}


def test_what_the_gate_measured_is_shown_beside_the_model_before(page: Any) -> None:
    def scores(alarm_rate: float, **separation: float) -> GateScores:
        return GateScores(alarm_rate, separation)

    new, old = scores(0.031, spike=0.9, drift=0.4), scores(0.002, spike=0.95, drift=0.75)
    refused = GateReport(False, ("it calls 3.1 % abnormal",), True, 1200, new, old, 0.005, 12_000, 3e-5)
    training = RetrainRecord("pump", "", 1.7e9, 4.0, "rejected", 40 << 20, 6000, refused.reasons[0], refused.as_json())
    streams = tuple(
        StreamSnapshot(name, "scoring", 9000, 600, score=1.0, threshold=2.0, model_version="3", last_timestamp=1.7e9)
        for name in ("pump", "stranger")
    )
    nonsense = {"passed": 1, "held_out_rows": [], "challenger": {"alarm_rate": "<b>", "separation": 7}, "champion": 3}
    of_pump = GateReport(True, (), True, 0, old, old, 0.005, 12_000, 3e-5).as_json()
    models = {"pump": {"version": "3", "gate": of_pump}, "stranger": {"version": "3", "gate": nonsense}}
    failed = RetrainRecord("young", "", 1.7e9, 4.0, "over_budget", 64 << 20, 600, "training needs 80 MiB")
    waits = "no model yet: training needs 80 MiB; tried again in 2 min"
    young = StreamSnapshot("young", "warming-up", 700, 600, eta_s=0.0, waits=waits)
    snapshot = plain_snapshot(
        streams=(*streams, young),
        readings={stream.name: readings(stream.name, ("flow",), low=[[1.0]]) for stream in streams},
        trainings=(asdict(training), asdict(failed)),
        models=models,
    )
    with served(snapshot) as url:
        page.goto(url)
        says(card(page, "young"), "No model yet: training needs 80 MiB; tried again in 2 min.")
        told = page.get_by_role("region", name="Models")
        says(told, re.compile(r"kept out\s*it calls 3.1 % abnormal"))
        says(
            told.locator("summary"),
            "3.1 % of 1,200 held-out normal rows abnormal (before 0.2 %), "
            "injected faults told apart 0.70 (before 0.85)",
        )
        page.set_viewport_size(PHONE)
        told.locator("summary").press("Enter")
        says(told.locator("dl"), "Fault: spike0.90 (before 0.95)Fault: drift0.40 (before 0.75)")
        assert is_as_wide_as_the_screen(page)
        for name, text in (
            ("pump", "Gatepassed: 0.2 % of rows it had learned, no others being left, abnormal (before 0.2 %)"),
            ("stranger", "Gatepassed"),
        ):
            card(page, name).locator("summary").click()
            says(card(page, name), text)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_the_page_is_used_by_keyboard_alone(page: Any, pump: tuple[DaemonProcess, Mosquitto]) -> None:
    page.goto(address(pump[0]))
    says(card(page, "pump"), "threshold")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the streams")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(card(page, "pump").locator("summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page, "pump").get_by_text("none, the newest row is normal")).to_be_visible()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_firing_alert_is_shown_with_its_cause_and_announced(page: Any, pump: tuple[DaemonProcess, Mosquitto]) -> None:
    daemon, broker = pump
    page.goto(address(daemon))
    says(card(page, "pump"), "threshold")
    broker.publish_lines("telemetry/pump", rows(60, start=1_700_000_440.0, fault=9.0))
    alert = page.get_by_role("region", name="Active alerts")
    says(alert.locator(".cause").first, re.compile(r"flow.*, expected.*\d % of the score"))
    says(page.locator("#news"), re.compile(r"alert: pump: flow .*, expected .* % of the score", re.IGNORECASE))
    says(page.locator("#summary"), "1 active alert")
    expect(page).to_have_title(re.compile("^● 1 alert · pi-1"))
    expect(card(page, "pump").locator(".spark path.band")).to_have_attribute("d", re.compile("^M"))

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        contrast, text = page.evaluate(LOWEST_CONTRAST)
        assert contrast >= 4.5, (scheme, text)
    page.set_viewport_size(PHONE)
    assert is_as_wide_as_the_screen(page)


def test_a_silence_is_shown_with_its_reason(page: Any, pump: tuple[DaemonProcess, Mosquitto]) -> None:
    daemon, _ = pump
    command = [sys.executable, "-m", "gon_edge", "silence", "add", "pump", "--for", "2h", "--reason", "new seal <i>"]
    subprocess.run([*command, "--config", str(daemon.config)], check=True, capture_output=True, timeout=120)
    page.goto(address(daemon))
    says(page.get_by_role("region", name="Silences"), re.compile(r"pump until .*, for another 2 h: new seal <i>"))
    says(card(page, "pump"), "Silenced until")


def test_another_client_with_its_id_is_named_on_the_page_and_by_the_doctor(
    page: Any, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    # mosquitto only closes the older connection.
    settings = {"url": mosquitto.url, "client_id": "twin", "reconnect_max": "1s"}
    twin = [require("mosquitto_sub"), "-p", str(mosquitto.port), "-i", "twin", "-t", "t"]
    with DaemonProcess(tmp_path, mosquitto, mqtt=settings).connected() as daemon, subprocess.Popen(twin) as other:
        page.goto(address(daemon))
        said = "another client uses the id 'twin'"
        try:
            says(page.locator("#broker-notice"), said)
            assert daemon.metric('gon_edge_mqtt_reconnects_total{reason="taken_over"}')
            doctor = [sys.executable, "-m", "gon_edge", "doctor", "--json", "--config", str(daemon.config)]
            found = json.loads(subprocess.run(doctor, capture_output=True, text=True).stdout)["findings"]
            assert any(finding["state"] == "warning" and said in finding["text"] for finding in found)
        finally:
            other.kill()
        assert said in daemon.log


def test_a_warm_up_shows_how_far_it_is(page: Any, fresh: DaemonProcess, mosquitto: Mosquitto) -> None:
    page.goto(address(fresh))
    says(page.locator("#summary"), "Waiting for readings")
    mosquitto.publish_lines("telemetry/boiler", rows(80))
    says(card(page, "boiler"), re.compile(r"warming up.*of 300 rows.*About \d min until the first model"))
    done = card(page, "boiler").get_by_role("progressbar")
    expect(done).to_have_attribute("aria-valuenow", re.compile(r"^2[567]$"), timeout=PATIENCE_MS)
    says(page.locator("#summary"), "Learning what is normal")


def test_a_dead_broker_is_said_and_so_is_its_return(page: Any, fresh: DaemonProcess, mosquitto: Mosquitto) -> None:
    page.goto(address(fresh))
    says(page.locator("#broker"), "connected to mqtt://")
    mosquitto.kill()
    says(page.locator("#broker-notice"), f"No connection to {mosquitto.url}")
    says(page.locator("#summary"), "No connection to the broker")
    says(page.locator("#news"), "No connection to the broker")
    mosquitto.start()
    expect(page.locator("#broker-notice")).to_be_hidden(timeout=PATIENCE_MS)
    says(page.locator("#news"), "The broker is back")


def test_a_daemon_that_does_not_answer_is_said_and_asked_again(page: Any, fresh: DaemonProcess) -> None:
    page.goto(address(fresh))
    says(page.locator("#summary"), "Waiting for readings")
    fresh.kill()
    notice = page.get_by_role("alert")
    says(notice, re.compile(r"gon-edge does not answer. What you see is from \d\d:\d\d"))
    expect(page).to_have_title("No answer · gon-edge")
    fresh.start()
    notice.get_by_role("button", name="Ask now").click()
    says(page.locator("#summary"), "Waiting for readings")
    expect(notice).to_be_hidden()


def test_fifty_streams_fit_a_phone_and_one_of_them_is_found(
    page: Any, fresh: DaemonProcess, mosquitto: Mosquitto
) -> None:
    for second in range(3):
        row = json.dumps({"time": 1_700_000_000 + second, "flow": 1.0})
        send(mosquitto, {f"telemetry/machine-{i}": row for i in range(50)})
    page.set_viewport_size(PHONE)
    page.goto(address(fresh))
    expect(page.locator("#streams > article")).to_have_count(50, timeout=PATIENCE_MS)
    says(page.locator("#tally"), "50 in all: 50 learning")
    assert is_as_wide_as_the_screen(page)
    order = page.locator("#streams h3").all_text_contents()
    assert order[:3] == ["machine-0", "machine-1", "machine-2"]  # and not machine-10
    page.get_by_role("searchbox", name="Find").fill("INE-17")
    expect(page.locator("#streams > article:visible")).to_have_count(1)
    page.get_by_role("searchbox").fill("nobody")
    expect(page.get_by_text("No stream of that name.")).to_be_visible()


def test_a_hostile_name_is_text(page: Any, fresh: DaemonProcess, mosquitto: Mosquitto) -> None:
    row = json.dumps({"time": 1_700_000_000, "flow": 1.0})
    names = (HOSTILE, "long" * 30, "__proto__", "turned\u202edrawkcab")
    send(mosquitto, {f"telemetry/{name}": row for name in names})
    page.set_viewport_size(PHONE)
    page.goto(address(fresh))
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("#streams > article")).to_have_count(3)  # a name that is not seen as it is, is refused
    assert page.locator("#streams :is(img, h3 > *)").count() == 0
    assert "owned" not in page.title()
    assert is_as_wide_as_the_screen(page)
