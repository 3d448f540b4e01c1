"""The dashboards of deploy/grafana, drawn by @grafana/scenes in Chromium from a real Prometheus, without Grafana.

The made-up machines of `make_screenshots` talk to a daemon, Prometheus scrapes it each second for four minutes, and
`tools/scenes` draws what there is.  Needs node and npm, prometheus, mosquitto, Chromium and playwright; npm takes
440 MB under build/scenes.  Says which queries failed, and ends with 1 when one did::

    python tools/draw_dashboards.py FOLDER      writes FOLDER/dashboard-fleet.png, -stream.png, -operations.png
"""

from __future__ import annotations

import argparse
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import paho.mqtt.client
import yaml
from make_screenshots import ROOT, ask, daemon, scene, wait
from playwright.sync_api import sync_playwright

from gon_edge.demo.broker import embedded_broker, free_port

SCENES = ROOT / "tools" / "scenes"
BUILT = ROOT / "build" / "scenes"
DASHBOARDS = {"fleet": 1500, "stream": 1560, "operations": 2100}
"""Name, and the height of its picture."""

SCRAPED_S = 240.0


def build() -> None:
    """Bundle the page into build/scenes."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for file in SCENES.iterdir():
        shutil.copy(file, BUILT)
    if not (BUILT / "node_modules").exists():
        install = ["npm", "install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-save"]
        subprocess.run(install, cwd=BUILT, check=True)
    subprocess.run(
        [
            "node_modules/.bin/esbuild",
            "main.jsx",
            "--bundle",
            "--format=esm",
            "--outfile=out.js",
            "--jsx=automatic",
            '--define:process.env.NODE_ENV="production"',
            "--define:global=window",
            "--alias:react-custom-scrollbars-2=./scrollbars.js",
            "--alias:react-router-dom-v5-compat=react-router-dom",
            *(f"--loader:.{kind}=dataurl" for kind in ("svg", "woff2", "png", "mp3", "ttf")),
            "--log-level=error",
        ],
        cwd=BUILT,
        check=True,
    )


def pages(prometheus: str) -> type[http.server.SimpleHTTPRequestHandler]:
    """Return a handler of the page, the dashboards, and Prometheus behind ``/prometheus``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(BUILT))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if not self.path.startswith(("/prometheus/", "/dashboards/")):
                super().do_GET()
                return
            status = 200
            if self.path.startswith("/dashboards/"):
                body = (ROOT / "deploy" / "grafana" / self.path[1:]).read_bytes()
            else:
                try:
                    with urllib.request.urlopen(
                        prometheus + self.path.removeprefix("/prometheus"), timeout=10
                    ) as answer:
                        body = answer.read()
                except urllib.error.HTTPError as error:
                    status, body = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def shoot(address: str, folder: Path) -> bool:
    """Take the pictures; whether every query was answered and every panel drawn."""
    good = True
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, height in DASHBOARDS.items():
            page = browser.new_page(viewport={"width": 1400, "height": height})
            page.goto(f"{address}/index.html?dashboard={name}&stream=pump-2")
            page.get_by_text("Data source").wait_for(timeout=30_000)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(2000)  # graphs are drawn after their data has come
            page.screenshot(path=folder / f"dashboard-{name}.png")
            problems = page.evaluate("window.problems")
            broken = page.get_by_text("An unexpected error happened").count()
            print(
                f"{name}: {page.evaluate('window.asked.length')} queries, {broken} broken panels", *problems, sep="\n  "
            )
            good = good and not problems and not broken
        browser.close()
    return good


def main() -> int:
    """Build, scrape, draw."""
    parser = argparse.ArgumentParser(description="Draw the dashboards.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    build()
    client = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(500)
    client.max_queued_messages_set(0)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as name, embedded_broker() as broker, daemon(Path(name), broker.url) as address:
        wait(lambda: ask(address, "status").get("mqtt", {}).get("connected"), "the daemon")
        client.connect("127.0.0.1", int(broker.url.rpartition(":")[2]))
        client.loop_start()
        config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [address.removeprefix("http://")]
        config["rule_files"], config["alerting"] = [], {}
        (Path(name) / "prometheus.yml").write_text(json.dumps(config))
        port = free_port()
        listen = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
        prometheus = subprocess.Popen(["prometheus", *listen, "--log.level=error"], cwd=name)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages(f"http://127.0.0.1:{port}"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            thread = scene(Path(name), address, client, stop)
            time.sleep(SCRAPED_S)
            good = shoot(f"http://127.0.0.1:{server.server_port}", folder)
            stop.set()
            thread.join()
        finally:
            server.shutdown()
            prometheus.terminate()
            prometheus.wait(20)
        client.loop_stop()
        client.disconnect()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
