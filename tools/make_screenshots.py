"""The pictures of the status page and of the demonstration in README and docs: docs/img/status-page*.png and demo.png.

For the status page a daemon with a broker of its own hears three made-up machines: the bearing of `pump-2` grows hot
now, as it did half an hour ago, but not on the three days before; `boiler` is trained a second time; `compressor` is
new.  The demonstration is run for real, in tmux, and wants a machine that has nothing else to do.  Needs mosquitto,
Chromium, playwright and, for the demonstration, tmux; takes two minutes, and differs in its times from run to run::

    python tools/make_screenshots.py            writes docs/img/status-page*.png
    python tools/make_screenshots.py --demo     writes docs/img/demo.png
    python tools/make_screenshots.py FOLDER     writes the status page there, and the whole page, light and dark, wide
                                                and narrow
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import shlex
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
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.demo.broker import embedded_broker, free_port  # noqa: E402

PAST_S = 45 * 60
EARLIER_DAYS, DAY_S = 3, 24 * 3600
WARMUP_ROWS = 900
HOT = ((-1650.0, -1590.0), (20.0, math.inf))  # seconds from now in which the bearing of pump-2 is hot
NEW_ROWS = 413
TERMINAL = (97, 23)
TERMINAL_THEME = TerminalTheme(
    (23, 25, 29), (222, 222, 222),
    [(23, 25, 29), (255, 107, 107), (128, 200, 155), (240, 195, 95), (110, 160, 240), (200, 140, 230), (95, 200, 180),
     (222, 222, 222)],
)  # fmt: skip
TERMINAL_PAGE = (
    "<body style='margin: 0; background: {background}'>"
    "<pre style='display: inline-block; padding: 24px; margin: 0; font: 13px/1.2 DejaVu Sans Mono, monospace; "
    "background: {background}; color: {foreground}'>{code}</pre>"
)
WIDE, PHONE = {"width": 1120, "height": 1070}, {"width": 390, "height": 844}


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
                publish(name, t, row(t, rng))

    def publish(name: str, t: int, row: dict[str, float]) -> None:
        values = {key: round(value, 3) for key, value in row.items()}
        client.publish(f"telemetry/{name}", json.dumps({"time": begin + t, **values}), qos=1)

    def go_on() -> None:
        at = int(time.time()) - begin
        while not stop.wait(0.2):
            while at < int(time.time()) - begin:
                at += 1
                send(at)

    for ago in range(EARLIER_DAYS, 0, -1):
        for t in range(-3600, 300):
            publish("pump-2", t - DAY_S * ago, pump(t - DAY_S * ago, rng))
    for t in range(-PAST_S, WARMUP_ROWS - PAST_S):
        send(t)
    wait(lambda: all(streams(address).get(name, {}).get("model_version") for name in ("pump-2", "boiler")), "models")
    for t in range(WARMUP_ROWS - PAST_S, 1 + int(time.time()) - begin):
        send(t)
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    wait(lambda: streams(address)["boiler"]["rows"] >= PAST_S - 60, "the past")
    subprocess.run(command("retrain", folder, "boiler"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    question = "days?stream=pump-2&feature=bearing_temp"
    wait(lambda: len(ask(address, question)["features"][0]["days"]) == EARLIER_DAYS, "earlier days on the disk", 120.0)
    return thread


def shoot(browser: Browser, address: str, path: Path, *, size: Any, dark: bool, scale: float, whole: bool) -> None:
    """Take one picture."""
    context = browser.new_context(
        viewport=size, color_scheme="dark" if dark else "light", device_scale_factor=scale, locale="en-GB"
    )
    page = context.new_page()
    page.goto(f"{address}/")
    page.get_by_text(f"This hour on {EARLIER_DAYS} earlier days").first.wait_for()
    page.get_by_role("region", name="Models").wait_for()
    page.screenshot(path=path, full_page=whole)
    context.close()


def demonstration(path: Path) -> None:
    """Run the demonstration in a terminal, and take its picture when the fault is nearly over."""
    tmux = ["tmux", "-L", "gon-edge-screenshot"]
    size = ["-x", str(TERMINAL[0]), "-y", str(TERMINAL[1])]
    demo = f"cd {shlex.quote(str(ROOT))}; {shlex.quote(sys.executable)} -m gon_edge demo"
    subprocess.run([*tmux, "new-session", "-d", *size, demo], check=True)
    try:
        wait(lambda: re.search(r"making a fault: .*, [0-2] s left", screen(tmux)), "the end of the fault", 300.0)
        shown = screen(tmux, "-e")
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    if "its alert came" not in shown:
        sys.exit("the fault raised no alert of its own; try again when this machine is idle")
    console = Console(record=True, width=TERMINAL[0], file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(shown.rstrip()))
    page = console.export_html(theme=TERMINAL_THEME, inline_styles=True, code_format=TERMINAL_PAGE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(device_scale_factor=1.5)
        drawn = context.new_page()
        drawn.set_content(page)
        drawn.locator("pre").screenshot(path=path)
        browser.close()


def screen(tmux: list[str], *options: str) -> str:
    """Return what the terminal of tmux shows."""
    return subprocess.run([*tmux, "capture-pane", "-p", *options], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Set the scene and take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of the status page.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to; default: docs/img")
    parser.add_argument("--demo", action="store_true", help="take docs/img/demo.png instead")
    options = parser.parse_args()
    if options.demo:
        demonstration(ROOT / "docs" / "img" / "demo.png")
        return
    folder: Path | None = options.folder
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
