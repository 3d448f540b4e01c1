"""Install the package into a booted Debian and see that it does what a service must.

::

    sudo make e2e-system                              # builds the package, then runs this
    sudo python3 tools/e2e_system.py dist/gon-edge_0.1.0_all.deb --cache /var/cache/gon-edge-e2e

A Debian without a kernel is built once in the cache folder (mmdebstrap, 300 MB) and copied for each run; systemd boots
in the copy (systemd-nspawn) without any network but loopback.  Everything is the real thing: apt, systemd, mosquitto,
journald, control groups.  Each step prints what was seen; the exit status is 1 when something was not.  Needs root,
mmdebstrap and systemd-container.  The steps depend on each other, which is why this is no test of pytest's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SERVICE = "gon-edge.service"
CONFIG = "/etc/gon-edge/gon-edge.yaml"
BASE = ("systemd", "systemd-sysv", "dbus", "udev", "iproute2", "procps", "python3", "mosquitto", "mosquitto-clients")
# What apt would load when the package is installed; kept in the root's cache, since the booted system has no network.
NEEDED = (
    "python3-numpy",
    "python3-psutil",
    "python3-rich",
    "python3-yaml",
    "libblas3",
    "liblapack3",
    "libopenblas0-serial",
    "ca-certificates",
    "openssl",
)


class Failed(Exception):
    """Something that had to be seen was not."""


class Machine:
    """A Debian that has booted in a copy of a root.

    Parameters
    ----------
    root : Path
        Copied, never changed.
    scratch : Path
        For the copy and the console's log.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = scratch / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(self.root)], check=True)
        # Not its first boot, at which systemd would ask questions on the console.
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        (self.root / "etc/resolv.conf").write_text("")
        began = time.monotonic()
        command = ["systemd-nspawn", "-q", "-D", str(self.root), "-b", "--register=no", "--keep-unit"]
        command += ["--private-network", "--console=pipe", "--machine=gon-edge-e2e"]
        with (scratch / "console.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._leader = 0
        try:
            wait_until(self._booted, 60, "the boot")
        except Failed:
            self.end()
            raise
        self.boot_s = time.monotonic() - began

    def _booted(self) -> bool:
        if not self._leader:
            found = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
            ).stdout.split()
            if not found:
                return False
            self._leader = int(found[0])
        return self.run("systemctl is-system-running", check=False).strip() in ("running", "degraded")

    def run(self, command: str, *, check: bool = True, stdin: str = "", timeout_s: float = 300) -> str:
        """Run a shell command inside and return its output, both streams."""
        arguments = ["nsenter", "-t", str(self._leader), "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        arguments += ["HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"cd; {command}"]
        done = subprocess.run(
            arguments, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s
        )
        if check and done.returncode != 0:
            raise Failed(f"{command!r} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def popen(self, command: str) -> subprocess.Popen[str]:
        """Start a command inside that goes on; its output is a pipe."""
        arguments = ["nsenter", "-t", str(self._leader), "-a", "sh", "-c", f"exec {command}"]
        return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def property(self, name: str, unit: str = SERVICE) -> str:
        """Return a property of a unit, as systemctl shows it."""
        return self.run(f"systemctl show -P {name} '{unit}'").strip()

    def status(self) -> dict[str, Any]:
        """Return what `gon-edge status --json` says; empty when nothing answers."""
        try:
            return dict(json.loads(self.run("gon-edge status --json", check=False)))
        except ValueError:
            return {}

    def stream(self, name: str) -> dict[str, Any]:
        """Return what status says about one stream."""
        return next((s for s in self.status().get("streams", ()) if s["stream"] == name), {})

    def enforce_memory_limits(self) -> None:
        """Let the booted systemd use the memory controller where the host has control groups of version 1.

        There nspawn mounts it read-only, and MemoryMax would silently do nothing.
        """
        if "memory" in self.run("ls /sys/fs/cgroup").split():
            self.run("mount -o remount,rw,bind /sys/fs/cgroup/memory && systemctl daemon-reexec")

    def end(self) -> None:
        """Power off and remove the copy."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("systemctl poweroff", check=False, timeout_s=30)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.root, ignore_errors=True)


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll `condition` until it is true and return its value.

    Raises
    ------
    Failed
        After `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not seen within {timeout_s:g} s")
        time.sleep(0.1)
    return value


def expect(condition: object, what: str) -> None:
    """Fail unless `condition` is true."""
    if not condition:
        raise Failed(what)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step and how long it took."""
    say(f"\n== {title}")
    began = time.monotonic()
    yield
    say(f"   ({time.monotonic() - began:.1f} s)")


def rows(count: int, *, start: float, seed: int, fault: float = 0.0, more: int = 0) -> str:
    """Return JSON rows, one a second, of four sensors and `more` that hang together; `fault` is added to one."""
    rng = random.Random(seed)
    load, lines = 0.0, []
    for i in range(count):
        load = 0.9 * load + rng.gauss(0, 1)
        row = {"datetime": start + i, "flow": 20 + load + rng.gauss(0, 0.2) + fault}
        row |= {"pressure": 3 + 0.2 * load + rng.gauss(0, 0.04), "current": 1.2 + 0.1 * load + rng.gauss(0, 0.02)}
        row["temperature"] = 45 + 0.5 * load + rng.gauss(0, 0.1)
        row |= {f"sensor-{k}": load + rng.gauss(0, 1) for k in range(more)}
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def build_root(cache: Path, suite: str) -> Path:
    """Build the Debian to boot, once, and return its folder."""
    root = cache / suite
    if (root / "etc/debian_version").exists():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    say(f"building a Debian in {root} (once, some minutes)")
    partial = cache / f"{suite}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    mirror = f"deb http://deb.debian.org/debian {suite} main"
    packages = ",".join(BASE)
    options = ["--variant=minbase", f"--include={packages}", '--aptopt=APT::Install-Recommends "false"']
    # Lists stay, what the package needs lies in apt's cache, and recommended packages are installed as on any Debian.
    download = f"apt-get install -qy --download-only {' '.join(NEEDED)}"
    hook = f'rm "$1"/etc/apt/apt.conf.d/99mmdebstrap; chroot "$1" {download}'
    options += ["--skip=cleanup/apt", f"--customize-hook={hook}"]
    subprocess.run(["mmdebstrap", *options, suite, str(partial), mirror], check=True, stdout=subprocess.DEVNULL)
    partial.rename(root)
    return root


def upgraded(deb: Path, scratch: Path) -> Path:
    """Return the same package with a higher version and another configuration file."""
    tree = scratch / "upgrade"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+upgrade", control.read_text(), flags=re.MULTILINE))
    with (tree / CONFIG[1:]).open("a") as file:
        file.write("\n## A line that the next version added.\n")
    result = scratch / "upgrade.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(result)], check=True, stdout=subprocess.DEVNULL
    )
    return result


class Story:
    """The steps, in their order."""

    def __init__(self, machine: Machine, deb: Path, scratch: Path) -> None:
        self.machine, self.deb, self.scratch = machine, deb, scratch
        self.clock = 1_700_000_000.0
        self.installed_at = 0.0

    def _publish(self, count: int, *, fault: float = 0.0, stream: str = "pump", more: int = 0) -> None:
        """Send rows as fast as the broker takes them."""
        lines = rows(count, start=self.clock, seed=int(self.clock) % 1000, fault=fault, more=more)
        self.clock += count
        self.machine.run(f"mosquitto_pub -q 1 -l -t telemetry/{stream}", stdin=lines)

    def _log(self, since: str) -> str:
        """Return what the program itself has logged after a cursor."""
        shown = self.machine.run(f"journalctl -u gon-edge -o cat --no-pager --after-cursor='{since}'", check=False)
        return "\n".join(line for line in shown.splitlines() if "gon_edge." in line or line.startswith("gon-edge: "))

    def _cursor(self) -> str:
        """Return where the journal ends now."""
        shown = self.machine.run("journalctl -n 1 --show-cursor --no-pager")
        return shown.rpartition("-- cursor: ")[2].strip()

    def _install(self) -> None:
        m = self.machine
        shutil.copy(self.deb, m.root / "root/gon-edge.deb")
        self.installed_at = time.monotonic()
        m.run("apt-get install -qy ./gon-edge.deb")
        took = time.monotonic() - self.installed_at
        say(f"   apt-get install ./gon-edge.deb: {took:.1f} s, libraries from apt's cache")
        m.run(f"systemctl start {SERVICE}")
        expect(m.property("ActiveState") == "active", "the service is not active")
        ready = int(m.property("ActiveEnterTimestampMonotonic")) - int(m.property("InactiveExitTimestampMonotonic"))
        say(f"   systemctl start: active, READY {ready / 1e6:.2f} s after its start; {m.property('StatusText')}")
        owner = m.run("stat -c %U:%G:%a /var/lib/gon-edge").strip()
        expect(owner == "gon-edge:gon-edge:750", f"/var/lib/gon-edge is {owner}")
        process = m.run(f"ps -o user= -p {m.property('MainPID')}").strip()
        expect(process == "gon-edge", f"runs as {process}")
        security = m.run(f"systemd-analyze security {SERVICE}").strip().splitlines()[-1]
        say(f"   runs as {process}, state {owner}; {security.lstrip('→ ')}")

    def _verdict(self) -> None:
        m = self.machine
        wait_until(lambda: m.status().get("mqtt", {}).get("connected"), 20, "the connection to mosquitto")
        self._publish(700)
        wait_until(lambda: m.stream("pump").get("score") is not None, 60, "the first verdict")
        say(f"   first verdict {time.monotonic() - self.installed_at:.1f} s after apt-get install began")
        say("   " + m.run("gon-edge status").strip().replace("\n", "\n   "))
        memory = int(m.run(f"grep VmRSS /proc/{m.property('MainPID')}/status").split()[1]) / 1024
        say(f"   resident memory {memory:.1f} MiB")

    def _alert(self) -> None:
        m = self.machine
        node = m.status()["node"]
        listener = m.popen(f"mosquitto_sub -q 1 -t 'gon-edge/{node}/alert' -t probe -C 2 -W 60")
        m.run("sleep 0.5; mosquitto_pub -t probe -m subscribed")
        self._publish(60)
        self._publish(20, fault=12.0)
        assert listener.stdout is not None
        expect("subscribed" in listener.stdout.readline(), "mosquitto_sub did not subscribe")
        event = json.loads(listener.stdout.readline() or "{}")
        expect(event.get("type") == "new" and event["stream"] == "pump", f"no alert: {event}")
        expect(event["top_features"][0]["feature"] == "flow", f"the wrong cause: {event['top_features']}")
        cause = event["top_features"][0]
        say(
            f"   gon-edge/{node}/alert: {event['type']} {event['kind']} on {event['stream']}, "
            f"score {event['score']:.1f} over {event['threshold']:.1f}; "
            f"{cause['feature']} {cause['value']:.1f}, expected {cause['expected']:.1f}"
        )
        self._publish(120)

    def _doctor(self) -> None:
        report = self.machine.run("gon-edge doctor")  # fails the step with its output when there is a fault
        say("   " + report.strip().replace("\n", "\n   "))

    def _credential(self) -> None:
        m = self.machine
        (m.root / "root/guarded.conf").write_text(
            "listener 1884 127.0.0.1\npassword_file /etc/mosquitto/guarded.passwd\nallow_anonymous false\n"
        )
        m.run(
            "mosquitto_passwd -c -b /etc/mosquitto/guarded.passwd node s3cret; chmod 644 /etc/mosquitto/guarded.passwd"
        )
        m.run("mosquitto -d -c /root/guarded.conf")
        m.run("printf s3cret > /etc/gon-edge/mqtt-password; chmod 600 /etc/gon-edge/mqtt-password")
        m.run(f"cp {CONFIG} good.yaml; mkdir -p /etc/systemd/system/{SERVICE}.d")
        m.run(
            f"printf '[Service]\\nLoadCredential=mqtt-password:/etc/gon-edge/mqtt-password\\n' "
            f"> /etc/systemd/system/{SERVICE}.d/password.conf; systemctl daemon-reload"
        )
        guarded = "  url: mqtt://localhost:1884\\n  username: node\\n  password_file: mqtt-password"
        m.run(f"sed -i 's|^  url: .*|{guarded}|' {CONFIG}; systemctl restart {SERVICE}")
        wait_until(lambda: m.status().get("mqtt", {}).get("connected"), 20, "the connection with the password")
        report = m.run("gon-edge doctor")
        line = next(line for line in report.splitlines() if " secrets " in line)
        say(f"   LoadCredential= of a file of root's, mode 600: connected to {m.status()['mqtt']['url']}")
        say(f"   doctor: {line}")
        m.run(f"cp good.yaml {CONFIG}; rm -r /etc/systemd/system/{SERVICE}.d; systemctl daemon-reload")
        m.run(f"systemctl restart {SERVICE}")
        wait_until(lambda: m.status().get("mqtt", {}).get("connected"), 20, "the connection to the first broker")

    def _reload(self) -> None:
        m = self.machine
        before = m.property("MainPID")
        caught = int(m.run(f"grep SigCgt /proc/{before}/status").split()[1], 16)
        if not caught >> (signal.SIGHUP - 1) & 1:
            say("   NOT RUN: this gon-edge does not listen to SIGHUP")
            return
        m.run(f"sed -i 's/^    warmup_rows: 600$/    warmup_rows: 500/' {CONFIG}")
        here = self._cursor()
        m.run("systemctl reload gon-edge")
        said = wait_until(lambda: self._log(here), 10, "a line about the reload")
        say("   a good change: " + said.strip().replace("\n", "\n   "))
        expect(m.property("MainPID") == before, "the reload ended the process")
        m.run(f"cp {CONFIG} good.yaml; echo 'mqtt_url: oops' >> {CONFIG}")
        here = self._cursor()
        m.run("systemctl reload gon-edge", check=False)
        said = wait_until(lambda: "mqtt_url" in self._log(here) and self._log(here), 10, "a line about the mistake")
        say("   a mistake: " + said.strip().replace("\n", "\n   "))
        time.sleep(1)
        expect(
            m.property("MainPID") == before and m.property("ActiveState") == "active", "the mistake ended the process"
        )
        self._publish(20)
        m.run(f"cp good.yaml {CONFIG}")
        m.run("systemctl reload gon-edge")

    def _wrong_configuration(self) -> None:
        m = self.machine
        m.run(f"cp {CONFIG} good.yaml; echo 'mqtt_url: oops' >> {CONFIG}")
        here = self._cursor()
        m.run(f"systemctl restart {SERVICE}", check=False)
        wait_until(lambda: m.property("ActiveState") == "failed", 20, "the failure")
        code = m.property("ExecMainStatus")
        expect(code == "78", f"exit status {code}")
        time.sleep(8)  # longer than RestartSec: a restart would be seen
        expect(m.property("ActiveState") == "failed" and m.property("NRestarts") == "0", "systemd restarts it")
        line = next(x for x in self._log(here).splitlines() if x.startswith("gon-edge: "))
        say(f"   exit status 78, no restart within 8 s; {line}")
        m.run(f"cp good.yaml {CONFIG} && systemctl start {SERVICE}")
        expect(m.property("ActiveState") == "active", "does not start again")

    def _watchdog(self) -> None:
        m = self.machine
        before = m.property("MainPID")
        here = self._cursor()
        began = time.monotonic()
        m.run(f"kill -STOP {before}")
        wait_until(lambda: m.property("NRestarts") == "1" and m.property("ActiveState") == "active", 60, "the restart")
        took = time.monotonic() - began
        say(f"   killed and up again {took:.1f} s after SIGSTOP; pid {before} -> {m.property('MainPID')}")
        for line in m.run(
            f"journalctl -u gon-edge -o cat --no-pager --after-cursor='{here}' | grep -i watchdog"
        ).splitlines():
            say(f"   {line}")
        wait_until(lambda: m.stream("pump").get("state") is not None, 20, "the stream after the restart")
        expect(m.stream("pump")["model_version"], "the model is gone")

    def _retrain(self) -> None:
        m = self.machine
        if "retrain" not in m.run("gon-edge --help"):
            say("   NOT RUN: this gon-edge has no command retrain")
            return
        unit, before = "gon-edge-retrain@pump.service", m.property("MainPID")
        self._publish(600)
        m.run(f"systemctl start {unit}", check=False)
        say(
            f"   as shipped: {m.property('Result', unit)}, status {m.property('ExecMainStatus', unit)}; "
            + " | ".join(m.run(f"journalctl -u {unit} -o cat --no-pager -n 4").strip().splitlines())
        )
        m.run(
            f"mkdir -p /run/systemd/system/{unit}.d && printf '[Service]\\nMemoryHigh=infinity\\nMemoryMax=24M\\n' "
            f"> /run/systemd/system/{unit}.d/limit.conf && systemctl daemon-reload"
        )
        m.run(f"systemctl start {unit}", check=False)
        result = m.property("Result", unit)
        expect(result in ("oom-kill", "signal"), f"MemoryMax=24M was not enforced: {result}")
        status = m.property("ExecMainStatus", unit)
        say(f"   with MemoryMax=24M: result {result}, ended by signal {status}")
        expect(m.property("MainPID") == before and m.property("NRestarts") == "1", "the daemon went with it")
        rows_before = m.stream("pump")["rows"]
        self._publish(20)
        wait_until(lambda: m.stream("pump")["rows"] > rows_before, 10, "rows scored after it")
        say(f"   the daemon scores on: pid {before}, {m.stream('pump')['state']}")

    def _child_out_of_memory(self) -> None:
        m = self.machine
        before = m.property("MainPID")
        # Room for the daemon, not for the training of 84 features beside it.
        limit = int(m.run(f"grep VmRSS /proc/{before}/status").split()[1]) // 1024 + 2
        m.run(f"systemctl set-property --runtime {SERVICE} MemoryHigh=infinity MemoryMax={limit}M")
        here = self._cursor()
        self._publish(700, stream="fan", more=80)
        wait_until(lambda: "no new model" in self._log(here), 60, "the end of the training process")
        expect(m.property("MainPID") == before, "the daemon went with it")
        line = next(x for x in self._log(here).splitlines() if "no new model" in x)
        say(f"   MemoryMax={limit}M: {line}")
        say(f"   the daemon lives: pid {before}, {m.property('ActiveState')}")
        m.run(f"systemctl set-property --runtime {SERVICE} MemoryHigh=192M MemoryMax=256M")
        wait_until(lambda: m.stream("fan").get("model_version"), 120, "the training that is tried again")
        say("   with the memory back, the next attempt gave a model")

    def _stop(self) -> None:
        m = self.machine
        node = m.status()["node"]
        self._publish(50)
        began = time.monotonic()
        m.run(f"systemctl stop {SERVICE}")
        took = time.monotonic() - began
        expect(took < 5, f"systemctl stop took {took:.1f} s")
        retained = m.run(f"mosquitto_sub -t 'gon-edge/{node}/status' -C 1 -W 3").strip()
        expect(retained == "offline", f"the status is {retained!r}")
        say(f"   systemctl stop: {took:.2f} s, result {m.property('Result')}; gon-edge/{node}/status: {retained}")

    def _upgrade(self) -> None:
        m = self.machine
        m.run(f"systemctl start {SERVICE}")
        before = m.property("MainPID")
        model = "sha256sum /var/lib/gon-edge/models/pump/model.npz"
        was, config = m.run(model), m.run(f"sha256sum {CONFIG}")
        shutil.copy(upgraded(self.deb, self.scratch), m.root / "root/upgrade.deb")
        m.run("apt-get install -qy -o Dpkg::Options::=--force-confold ./upgrade.deb")
        expect(m.run(model) == was and m.run(f"sha256sum {CONFIG}") == config, "model or configuration changed")
        expect(m.run(f"ls {CONFIG}.dpkg-dist").strip(), "the new configuration is not beside the old one")
        expect(m.property("ActiveState") == "active" and m.property("MainPID") != before, "not restarted")
        wait_until(lambda: m.stream("pump").get("model_version"), 20, "the stream after the upgrade")
        say(
            f"   {m.run('dpkg-query -W gon-edge').strip()}: restarted, model and edited configuration kept, "
            "the new one is gon-edge.yaml.dpkg-dist"
        )

    def _remove_and_purge(self) -> None:
        m = self.machine
        m.run("apt-get remove -qy gon-edge")
        expect("could not be found" in m.run(f"systemctl status {SERVICE}", check=False), "the unit is still there")
        kept = m.run(f"ls {CONFIG} /var/lib/gon-edge/models/pump/model.npz").split()
        say(f"   removed; kept: {' '.join(kept)}")
        left = m.run("find /usr/share/gon-edge /usr/bin/gon-edge", check=False)
        expect("No such file" in left and "__pycache__" not in left, f"left behind: {left}")
        m.run("apt-get purge -qy gon-edge")
        left = m.run(
            "ls -d /etc/gon-edge /var/lib/gon-edge /run/gon-edge; ls /etc/systemd/system/*/gon-edge*", check=False
        )
        expect(left.count("No such file") == 4, f"left behind: {left}")
        say("   purged: /etc/gon-edge and /var/lib/gon-edge are gone")

    def run(self) -> None:
        """All of it."""
        for title, part in (
            ("install, start", self._install),
            ("first verdict", self._verdict),
            ("an alert", self._alert),
            ("doctor", self._doctor),
            ("a password handed over by systemd", self._credential),
            ("reload", self._reload),
            ("a wrong configuration", self._wrong_configuration),
            ("the watchdog", self._watchdog),
            ("a training that outgrows its control group", self._retrain),
            ("a training within the daemon's control group that finds no memory", self._child_out_of_memory),
            ("stop", self._stop),
            ("upgrade", self._upgrade),
            ("remove, purge", self._remove_and_purge),
        ):
            with step(title):
                part()


def main() -> int:
    """Run all steps; the exit status is 1 when one failed."""
    parser = argparse.ArgumentParser(description="Install the package into a booted Debian and see that it serves.")
    parser.add_argument("deb", type=Path, help="the package")
    parser.add_argument(
        "--cache", type=Path, default=Path("/var/cache/gon-edge-e2e"), help="for the Debian to boot (%(default)s)"
    )
    parser.add_argument("--suite", default="bookworm", help="bookworm or trixie (default: %(default)s)")
    options = parser.parse_args()
    for program in ("mmdebstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing; type: apt install mmdebstrap systemd-container util-linux")
    if os.geteuid() != 0:
        sys.exit("booting a system needs root; type: sudo make e2e-system")
    root = build_root(options.cache, options.suite)
    with tempfile.TemporaryDirectory(dir=options.cache, prefix="run-") as scratch:
        try:
            machine = Machine(root, Path(scratch))
        except Failed as error:
            sys.exit(f"FAILED: {error}\n{(Path(scratch) / 'console.log').read_text(errors='replace')}")
        try:
            version = machine.run("systemctl --version").split("\n")[0]
            say(f"Debian {machine.run('cat /etc/debian_version').strip()}, {version}, booted in {machine.boot_s:.1f} s")
            machine.enforce_memory_limits()
            Story(machine, options.deb, Path(scratch)).run()
            say("\nall seen")
            return 0
        except Failed as error:
            say(f"\nFAILED: {error}")
            say(
                machine.run(f"systemctl status {SERVICE}; journalctl -u gon-edge -o short-monotonic -n 40", check=False)
            )
            return 1
        finally:
            machine.end()


if __name__ == "__main__":
    sys.exit(main())
