"""The pictures of the status page in README and docs/operating.md: docs/img/status-page*.png.

A daemon with a broker of its own hears three made-up machines: the bearing of `pump-2` grows hot now, as it did half an
hour ago; `boiler` is trained a second time; `compressor` is new.  Needs mosquitto, Chromium and playwright, takes two
minutes, and differs in its times from run to run::

    python tools/make_screenshots.py            writes docs/img/status-page*.png
    python tools/make_screenshots.py FOLDER     writes them there, and the whole page, light and dark, wide and narrow
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.demo.broker import embedded_broker, free_port  # noqa: E402

PAST_S = 45 * 60
WARMUP_ROWS = 900
HOT = ((-1650.0, -1590.0), (20.0, math.inf))  # seconds from now in which the bearing of pump-2 is hot
NEW_ROWS = 413
WIDE, PHONE = {"width": 1120, "height": 660}, {"width": 390, "height": 844}


def pump(t: float, rng: random.Random) -> dict[str, float]:
    """One row of pump-2, `t` seconds from now."""
    speed = 2900 + 60 * math.sin(t / 25) + rng.gauss(0, 4)
    hot = 21 if any(begin <= t < end for begin, end in HOT) else 0
    return {
        "speed": speed,
        "flow": speed / 145 + rng.gauss(0, 0.1),
        "pressure": 3.1 + speed / 9000 + rng.gauss(0, 0.01),
        "current": speed / 700 + rng.gauss(0, 0.02),
        "bearing_temp": 50 + speed / 240 + hot + rng.gauss(0, 0.2),
    }


def boiler(t: float, rng: random.Random) -> dict[str, float]:
    """One row of boiler."""
    load = math.sin(t / 90) + 0.3 * math.sin(t / 23)
    return {
        "flow_temp": 62 + 4 * load + rng.gauss(0, 0.2),
        "return_temp": 48 + 3 * load + rng.gauss(0, 0.2),
        "pressure": 1.6 + 0.05 * load + rng.gauss(0, 0.01),
        "burner": 40 + 12 * load + rng.gauss(0, 1),
    }


def compressor(t: float, rng: random.Random) -> dict[str, float]:
    """One row of compressor."""
    load = math.sin(t / 60)
    return {"pressure": 8 + 0.2 * load, "current": 11 + load + rng.gauss(0, 0.1), "oil_temp": 70 + rng.gauss(0, 0.3)}


@contextmanager
def daemon(folder: Path, url: str) -> Iterator[str]:
    """Run a daemon, and yield the address of its page."""
    port = free_port()
    settings = {
        "node": "plant-1",
        "state_dir": str(folder / "state"),
        "mqtt": {"url": url},
        "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
        "http": {"listen": f"127.0.0.1:{port}"},
        "streams": {"defaults": {"warmup_rows": WARMUP_ROWS}},
    }
    (folder / "gon-edge.yaml").write_text(json.dumps(settings), encoding="utf-8")
    process = subprocess.Popen(command("run", folder), cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def command(name: str, folder: Path, *more: str) -> list[str]:
    """Return a gon-edge command for the daemon of this folder."""
    return [sys.executable, "-m", "gon_edge", name, *more, "--config", str(folder / "gon-edge.yaml")]


def wait(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.1)


def ask(address: str, what: str) -> dict[str, Any]:
    """Return what a daemon says of itself; nothing while it does not answer."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{what}", timeout=5) as answer:
            said: dict[str, Any] = json.load(answer)
            return said
    except OSError:
        return {}


def streams(address: str) -> dict[str, Any]:
    """Return the streams of a daemon by name."""
    return {stream["stream"]: stream for stream in ask(address, "streams").get("streams", ())}


def scene(folder: Path, address: str, client: paho.mqtt.client.Client, stop: threading.Event) -> threading.Thread:
    """Send the past of three machines, train one again, and go on sending; return the thread that does."""
    rng, begin = random.Random(1), int(time.time())
    machines = {"pump-2": (pump, PAST_S), "boiler": (boiler, PAST_S), "compressor": (compressor, NEW_ROWS)}

    def send(t: int) -> None:
        for name, (row, past) in machines.items():
            if t >= -past:
                values = {key: round(value, 3) for key, value in row(t, rng).items()}
                client.publish(f"telemetry/{name}", json.dumps({"time": begin + t, **values}), qos=1)

    def go_on() -> None:
        at = int(time.time()) - begin
        while not stop.wait(0.2):
            while at < int(time.time()) - begin:
                at += 1
                send(at)

    for t in range(-PAST_S, WARMUP_ROWS - PAST_S):
        send(t)
    wait(lambda: all(streams(address).get(name, {}).get("model_version") for name in ("pump-2", "boiler")), "models")
    for t in range(WARMUP_ROWS - PAST_S, 1 + int(time.time()) - begin):
        send(t)
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    wait(lambda: streams(address)["boiler"]["rows"] >= PAST_S - 60, "the past")
    subprocess.run(command("retrain", folder, "boiler"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return thread


def shoot(browser: Browser, address: str, path: Path, *, size: Any, dark: bool, scale: float, whole: bool) -> None:
    """Take one picture."""
    context = browser.new_context(
        viewport=size, color_scheme="dark" if dark else "light", device_scale_factor=scale, locale="en-GB"
    )
    page = context.new_page()
    page.goto(f"{address}/")
    page.get_by_role("region", name="Active alerts").wait_for()
    page.get_by_role("region", name="Models").wait_for()
    page.screenshot(path=path, full_page=whole)
    context.close()


def main() -> None:
    """Set the scene and take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of the status page.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to; default: docs/img")
    folder: Path | None = parser.parse_args().folder
    target = folder or ROOT / "docs" / "img"
    client = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(500)
    client.max_queued_messages_set(0)
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory() as state,
        embedded_broker() as broker,
        daemon(Path(state), broker.url) as address,
    ):
        wait(lambda: ask(address, "status").get("mqtt", {}).get("connected"), "the daemon")
        client.connect("127.0.0.1", int(broker.url.rpartition(":")[2]))
        client.loop_start()
        thread = scene(Path(state), address, client, stop)
        wait(lambda: ask(address, "status")["latency"]["p95_s"] < 0.1, "rows that did not come in one heap", 120.0)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            shoot(browser, address, target / "status-page.png", size=WIDE, dark=False, scale=1.0, whole=False)
            shoot(browser, address, target / "status-page-phone.png", size=PHONE, dark=True, scale=1.5, whole=False)
            if folder is not None:
                for name, size in (("wide", WIDE), ("phone", PHONE)):
                    for dark in (False, True):
                        path = folder / f"whole-{name}-{'dark' if dark else 'light'}.png"
                        shoot(browser, address, path, size=size, dark=dark, scale=1.0, whole=True)
            browser.close()
        stop.set()
        thread.join()
        client.loop_stop()
        client.disconnect()
    print(f"pictures in {target}")


if __name__ == "__main__":
    main()
