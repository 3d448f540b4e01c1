"""The daemon under a random sequence of attacks, and who knows of which alert at the end.

The sequence is that of its seed.  Beside the rows, alerts are accounted for: those that are open at the end must be the
same on the page, in the retained states, in the database, and at a subscriber with a persistent session.  Each alert
that began, by the daemon's log, must have been heard of, but for those that were not on the disk when the daemon was
killed.
"""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any

from account import Finding, Window
from attacks import Attacks
from rig import CLIENT, LISTENER, Sample, wait_for

from gon_edge.errors import StoreError
from gon_edge.state.store import Store

_GROWTH_BYTES = 4 << 20
"""Not critical: two lives of one program differ by 1 MiB at the most on this machine, and a leak grows by more."""

_CALM_S = 6.0


class Chaos(Attacks):
    """Attacks drawn at random, one to three between two moments of rest."""

    title = "The daemon under random attacks"
    still_s = 2.5
    only: tuple[str, ...] = ()  # attacks with one of these in their name

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kills = 0
        self._gone: set[str] = set()  # alerts of which the disk did not know when the daemon was killed
        self._calm_before: list[Sample] = []
        self._calm_after: list[Sample] = []

    def course(self) -> None:
        """Warm-up, attacks, and a calm end with a fault that is still there."""
        self.rig.start_listener()
        with self._window("what devices had kept, and first models"):
            wait_for(self._all_scored, 240, "the models")
        self._calm_before = self._calm()
        only = self.only or ("",)
        attacks = [(what, attack) for what, attack in self._attacks() if any(part in what for part in only)]
        calm = len(self.windows)
        while (
            len(self.windows) == calm or self.at_s < self.total_s - 25.0
        ):  # one at least, however long the models took
            chosen = self.rng.sample(attacks, min(len(attacks), self.rng.choice((1, 1, 2, 3))))
            with self._window("; ".join(what for what, _ in chosen)) as window:
                window.note = ", ".join(note for _, attack in chosen if (note := attack(window)))
        with self._window("one stream has a fault that stays"):
            faulty = self.sender.names[0]
            self.sender.faulty = {faulty}
            wait_for(lambda: any(faulty in alert for alert in self._open()), 90, "the alert of a fault")
        with self._window("a stop, with an alert open") as window:
            self._restart(window, signal.SIGTERM)
            self._wait_for_connection()
            wait_for(self._all_scored, 120, "the streams after the restart")
        self._calm_after = self._calm()

    def _attacks(self) -> list[tuple[str, Callable[[Window], str]]]:
        short = [
            ("kill -9", lambda window: self._restart(window, signal.SIGKILL)),
            ("a stop", lambda window: self._restart(window, signal.SIGTERM)),
            ("the daemon stands still", lambda _: self._daemon_stands_still()),
            ("the broker restarts", lambda _: self._broker_restarts(1.0)),
            ("the broker forgets everything", self._broker_forgets),
            ("the broker takes small packets only", lambda _: self._small_packets()),
            ("the broker denies alerts", lambda _: self._denied()),
            ("the connection is cut", lambda _: self._cut(self.rng.uniform(1.0, 8.0))),
            ("the database is deleted", lambda _: self._state_deleted()),
            ("a model goes", lambda _: self._model_damaged()),
            ("garbage", lambda _: self._flood()),
            ("names without end", lambda _: self._names()),
            ("a fault begins or ends", lambda _: self._fault()),
            ("a training is held", lambda _: self._training_held()),
        ]
        if self.total_s < 300.0:
            return short
        return [
            *short,
            ("the broker hangs", lambda _: self._broker_hangs()),
            ("the disk is full", lambda _: self._disk_full()),
            ("the daemon's clock is set", lambda _: self._daemon_clock()),
            ("the devices' clocks are set", lambda _: self._device_clocks()),
        ]

    # -- attacks that concern the account ----------------------------------------------------------------------------

    def _restart(self, window: Window, how: signal.Signals) -> str:
        self._go_on(self.rng.uniform(0.0, 2.0))
        self._end_life(window, how)
        if how == signal.SIGKILL:
            self.kills += 1
            self._gone |= self.rig.opened() - self._stored()
        self._go_on(self.rng.uniform(0.0, 2.0))
        self.rig.start_daemon()
        return ""

    def _broker_forgets(self, window: Window) -> str:
        """At rest: what a broker forgets is nobody's fault but its own, so nothing may be in it."""
        self._rest(window)
        before = {client: self.rig.subscriptions(client) for client in (CLIENT, LISTENER)}
        self.rig.stop_broker()
        (self.rig.folder / "mosquitto.db").unlink(missing_ok=True)
        self.rig.start_broker()
        wait_for(
            lambda: all(self.rig.subscriptions(client) > count for client, count in before.items()),
            60,
            "both subscribers at the new broker",
        )
        time.sleep(0.5)
        self.sender.resting.clear()
        return "no session, nothing retained"

    def _stored(self, active: bool | None = None) -> set[str]:
        """Alerts the disk knows of."""
        with contextlib.suppress(StoreError), Store.open(self.rig.state, read_only=True) as store:
            return {alert["id"] for alert in store.alerts(1000, active=active)}
        return set()  # it was deleted a moment ago

    # -- the end -----------------------------------------------------------------------------------------------------

    def _all_scored(self) -> bool:
        streams = json.loads(self.rig.get("/api/v1/streams") or '{"streams": []}')["streams"]
        scored = {stream["stream"] for stream in streams if stream["state"] == "scoring"}
        return scored >= set(self.sender.names)

    def _open(self) -> set[str]:
        """Alerts that are open on the page."""
        alerts = json.loads(self.rig.get("/api/v1/alerts") or '{"alerts": []}')["alerts"]
        return {alert["id"] for alert in alerts if alert["type"] != "end"}

    def _calm(self) -> list[Sample]:
        samples = []
        with self._window("calm"):
            for _ in range(3):
                self._go_on(_CALM_S / 3)
                samples.append(self.rig.sample(self.at_s))
        return [sample for sample in samples if sample is not None]

    def findings(self) -> list[Finding]:
        """As of any run, and the account of alerts."""
        page, heard = self._open(), self.rig.heard()
        states = self.rig.states()
        found = super().findings()
        return [*found, *self._alerts_found(page, heard, states)]

    def _alerts_found(
        self, page: set[str], heard: list[tuple[float, dict[str, Any]]], states: list[dict[str, Any]]
    ) -> list[Finding]:
        opened, stored = self.rig.opened(), self._stored(active=True)
        retained = {alert for state in states for alert in state["alerts"]}
        untold = {alert for state in states for alert in state["untold"]}
        last = {event["id"]: event["type"] for _, event in heard}
        believed = {alert for alert, kind in last.items() if kind != "end"}
        unheard = opened - last.keys()
        taken = f"{len(unheard & self._gone)} taken by {self.kills} kills"
        return [
            (page == retained, "the page and the retained states have the same alerts", _sets(page, retained)),
            (page == stored, "the page and the database have the same alerts", _sets(page, stored)),
            (page == believed, "the page and the subscriber have the same alerts", _sets(page, believed)),
            (not untold, "every event has been told", f"{sorted(untold) or 'none'} untold"),
            (
                unheard <= self._gone,
                "every alert was heard of, but for those a kill took before the disk knew of them",
                f"{len(opened)} opened, {len(opened & last.keys())} heard of, {taken}"
                + (f"; not: {sorted(unheard - self._gone)}" if unheard - self._gone else ""),
            ),
        ]

    def _process_found(self) -> list[Finding]:
        """Memory, threads and files of the first life, when it was warm, and of the last one."""
        found = []
        before, after = (statistics.median(s.rss_bytes for s in x) for x in (self._calm_before, self._calm_after))
        grown = f"{before / 2**20:.2f} MiB before, {after / 2**20:.2f} MiB after ({(after - before) / 2**20:+.2f})"
        found.append((after - before < _GROWTH_BYTES, "resident memory grew by less than 4 MiB", grown))
        for what, of in (("threads", lambda s: s.threads), ("file descriptors", lambda s: s.files)):
            begin, end = (statistics.mode(of(s) for s in x) for x in (self._calm_before, self._calm_after))
            found.append((begin == end, f"{what} are as many as at first", f"{begin} before, {end} at the end"))
        return found


def _sets(some: set[str], others: set[str]) -> str:
    return f"{len(some)} and {len(others)}" + (f"; not in both: {sorted(some ^ others)}" if some ^ others else "")
