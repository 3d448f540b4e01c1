"""What happens next in the demonstration.

`Story` takes what the daemon says and the time, and decides: when the fault is due, whether its alert has come, what to
tell.  It knows neither clock nor process nor terminal; ``run`` does what it decides and ``picture`` shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gon_edge.commands.text import cause_text
from gon_edge.config.schema import MqttConfig

LOOK_EVERY_S = 0.5
"""Between two looks at the daemon: as often as a reading comes."""

_LATE_S = 10.0
"""An alert that comes this long after the fault is over is another's."""

_SCORE_OVER_S = 5.0
_RISE = 2.0
"""An alert that was open before is the fault's when the score is by so much above the highest of the seconds before.
Scores are logarithms: it is a factor of seven in energy.  Not critical: it tells one that jumps from one that
lingers."""

_BUSY_PERCENT = 60.0
"""A machine busier than this hardly becomes busier by the fault.  Not critical: it only words the outcome."""

_ACCEPTANCES = 2
"""How often a change since the warm-up is learned before the fault is made anyway."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What kind of demonstration.

    None of its times is critical: each is long enough to be followed by eye, and short enough to be waited for.

    Attributes
    ----------
    fast : bool
        Half the warm-up, half the fault.
    fault : bool
        Whether to make one.
    duration_s : float or None
        End after so many seconds; ``None`` goes on until Ctrl-C.
    broker : MqttConfig or None
        A running broker to use instead of one of our own.
    """

    fast: bool = False
    fault: bool = True
    duration_s: float | None = None
    broker: MqttConfig | None = None

    @property
    def warmup_rows(self) -> int:
        """Rows before the first model, two a second."""
        return 60 if self.fast else 120

    @property
    def calm_s(self) -> float:
        """Seconds of scoring without an alert before the fault."""
        return 10.0 if self.fast else 20.0

    @property
    def calm_at_most_s(self) -> float:
        """Seconds of scoring after which the fault comes anyway."""
        return 60.0 if self.fast else 120.0

    @property
    def patience_s(self) -> float:
        """How long an alert may be open before the fault until what raised it is accepted as normal."""
        return 25.0 if self.fast else 50.0

    @property
    def fault_s(self) -> float:
        """How long the fault lasts."""
        return 15.0 if self.fast else 30.0


Phase = Literal["starting", "warming-up", "training", "calm", "fault", "after"]


class Story:
    """What has happened, what happens now and what comes next.

    Parameters
    ----------
    settings : DemoSettings
    stream : str
        Whose alerts count.
    fault_text : str
        What the fault is, as in ``2 busy processes and 1.0 GiB of memory``.

    Attributes
    ----------
    phase : str
    fault_due : bool
        The fault should begin now; say when it has by :meth:`fault_began`.
    acceptance_due : float or None
        What this machine does has changed since the warm-up: the last so many seconds should be accepted now; say when
        that is under way by :meth:`acceptance_began`.
    alert : mapping or None
        The newest event of the alert that the fault raised, or else of one that is open.  Of one that has ended, the
        event with the highest score: what made it end explains nothing.
    detected_after_s : float or None
        Seconds from the beginning of the fault until its alert was seen.
    """

    def __init__(self, settings: DemoSettings, stream: str, fault_text: str) -> None:
        self.phase: Phase = "starting"
        self.fault_due = False
        self.acceptance_due: float | None = None
        self.alert: Mapping[str, Any] | None = None
        self.detected_after_s: float | None = None
        self._settings = settings
        self._stream = stream
        self._fault_text = fault_text
        self._fault_began: float | None = None
        self._scoring_since: float | None = None
        self._alert_since: float | None = None
        self._acceptances = 0
        self._calm_since: float | None = None
        self._known: dict[str, str] = {}  # id of an alert: type of its newest event
        self._before_fault: set[str] = set()
        self._recent_scores: deque[float] = deque(maxlen=round(_SCORE_OVER_S / LOOK_EVERY_S))
        self._score_before = 0.0
        self._caught: str | None = None
        self._worst: Mapping[str, Any] = {}  # event of the alert caught
        self._meanwhile = self._refused = ""
        self._now = self._busy_percent = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether what was to be shown has been seen."""
        return not self._settings.fault or self.detected_after_s is not None

    @property
    def outcome(self) -> str:
        """One sentence on how it ended."""
        if not self._settings.fault:
            return "no fault was made"
        if self._fault_began is None:
            return "it ended before the fault began"
        if self.detected_after_s is not None:
            causes = ", ".join(cause_text(cause) for cause in self._worst["top_features"][:3])
            what = "that was open rose" if self._caught in self._before_fault else "came"
            return f"the alert {what} {self.detected_after_s:.1f} s after the fault began: {causes}"
        if self._before_fault:
            return (
                "the fault raised no alert of its own: one was open before (what this machine does changed); try again"
            )
        if self._busy_percent > _BUSY_PERCENT:
            return (
                f"the fault raised no alert: this machine was {self._busy_percent:.0f} % busy before it, "
                "so that more work is no news; try again when it is idle"
            )
        return "the fault raised no alert"

    def fault_began(self, now: float, busy_percent: float) -> list[str]:
        """Note that the fault has begun; return what to tell.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        busy_percent : float
            How busy the processors were until now, on average.
        """
        self._busy_percent = busy_percent
        self.fault_due = False
        self.phase = "fault"
        self._fault_began = self._now = now
        self._before_fault = {alert_id for alert_id, kind in self._known.items() if kind != "end"}
        self._score_before = max(self._recent_scores, default=0.0)
        return [f"making a fault: {self._fault_text} for {self._settings.fault_s:.0f} s"]

    def acceptance_began(self, command: str) -> list[str]:
        """Note that ``command`` is under way; return what to tell."""
        self.acceptance_due = None
        self._acceptances += 1
        self._scoring_since = self._now
        self._alert_since = None
        return [f"what this machine does has changed since the warm-up, and is to be learned: {command}"]

    def observe(
        self,
        now: float,
        streams: Sequence[Mapping[str, Any]],
        alerts: Sequence[Mapping[str, Any]],
        trainings: Sequence[Mapping[str, Any]] = (),
    ) -> list[str]:
        """Take what the daemon says, in monotonic seconds; return what to tell, oldest first."""
        self._now = now
        stream = next((stream for stream in streams if stream["stream"] == self._stream), None)
        if stream is not None and stream["score"] is not None:
            self._recent_scores.append(stream["score"])
        told = self._observe_state(now, stream, trainings)
        score = stream["score"] if stream is not None else None
        told += self._observe_alerts(now, score or 0.0, [alert for alert in alerts if alert["stream"] == self._stream])
        if self.phase == "calm" and self._settings.fault and self._scoring_since is not None:
            calm = self._calm_since is not None and now - self._calm_since >= self._settings.calm_s
            self.fault_due = calm or now - self._scoring_since >= self._settings.calm_at_most_s
            if self._acceptances < _ACCEPTANCES and self._alert_since is not None and not self.fault_due:
                open_s = now - self._alert_since
                self.acceptance_due = open_s if open_s >= self._settings.patience_s else None
        if self.phase == "fault" and now - (self._fault_began or now) >= self._settings.fault_s:
            self.phase = "after"
            told.append(f"the fault is over: {self.outcome}")
        return told

    def _observe_state(
        self, now: float, stream: Mapping[str, Any] | None, trainings: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        state = "starting" if stream is None else stream["state"]
        told: list[str] = []
        if stream is not None and stream["starter"] is not None and not self._meanwhile:
            self._meanwhile = f"; {stream['starter']} scores"
            told.append(f"the model {stream['starter']}, made for machines like this one, scores every row meanwhile")
        if self.phase in ("calm", "fault", "after") or state == self.phase:
            return told
        if stream is not None and state == "warming-up" and self.phase == "training":
            self.phase = "warming-up"
            ended = next((each for each in trainings if each["stream"] == self._stream), {"reason": ""})
            self._refused = ended["reason"] or "the training failed"
            return [*told, stream["waits"] or f"no model yet: {self._refused}"]
        if stream is not None and state == "warming-up":
            self.phase = "warming-up"
            return [f"the daemon has its first readings: {stream['rows_needed']} rows make the warm-up", *told]
        trains = "the warm-up is over: a child process trains the first model"
        if stream is not None and state == "training":
            self.phase = "training"
            return [*told, trains]
        if stream is not None and state == "scoring":
            if self.phase == "warming-up":
                told.append(trains)  # in less time than lies between two looks
            self.phase = "calm"
            self._scoring_since = self._calm_since = now
            takes_over = "takes over" if self._meanwhile else "is in use"
            own = f"model {stream['model_version']} of {len(stream['features'])} features"
            return [*told, f"{own} {takes_over}: every row is scored"]
        return told

    def _observe_alerts(self, now: float, score: float, alerts: Sequence[Mapping[str, Any]]) -> list[str]:
        told = []
        for alert in reversed(alerts):  # they come newest first
            before, self._known[alert["id"]] = self._known.get(alert["id"]), alert["type"]
            causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:3])
            if before is None:
                told.append(f"ALERT {alert['severity']}, {alert['kind']}: {causes}")
            elif alert["type"] == "end" and before != "end":
                told.append("the alert has ended: the readings are normal again")
            is_back = before == "end" and alert["type"] != "end"
            if is_back:
                told.append(f"the alert is back: {causes}")
            if self._caught is None and self._is_of_the_fault(now, score, alert, is_new=before is None or is_back):
                self._caught = alert["id"]
                self.detected_after_s = now - (self._fault_began or now)
        is_open = [alert for alert in alerts if alert["type"] != "end"]
        caught = [alert for alert in alerts if alert["id"] == self._caught]
        for alert in caught:
            in_time = now - (self._fault_began or now) <= self._settings.fault_s
            if not self._worst or (in_time and (alert["score"] or 0.0) > (self._worst["score"] or 0.0)):
                self._worst = alert
            if alert["type"] == "end":
                caught = [{**alert, "top_features": self._worst["top_features"]}]
        self.alert = next(iter(caught or is_open), None)
        if is_open:
            self._calm_since = None
            if self._alert_since is None:
                self._alert_since = now
        else:
            self._alert_since = None
            if self._calm_since is None:
                self._calm_since = now
        return told

    def _is_of_the_fault(self, now: float, score: float, alert: Mapping[str, Any], *, is_new: bool) -> bool:
        """Whether the fault raised it: it is new or back, or it was open and the score has risen a lot."""
        if self._fault_began is None or alert["kind"] != "anomaly":
            return False
        if now - self._fault_began > self._settings.fault_s + _LATE_S:
            return False
        risen = alert["type"] != "end" and score > self._score_before + _RISE
        return is_new or (alert["id"] in self._before_fault and risen)

    def now_and_next(self) -> tuple[str, str]:
        """Return what is happening and what will."""
        settings, now = self._settings, self._now
        if self.phase == "starting":
            return "the daemon starts and waits for the first readings", "it collects readings, to learn what is normal"
        if self.phase == "warming-up" and self._refused:
            return f"collecting more readings: no model yet, {self._refused}", "another training, with more rows"
        if self.phase == "warming-up":
            now_text = "collecting readings, to learn what is normal here"
            return now_text + self._meanwhile, "a child process trains the first model"
        if self.phase == "training":
            if self._meanwhile:
                return f"a child process trains the first model{self._meanwhile}", "the new model takes over"
            return "a child process trains the first model", "every row gets a score"
        if self.phase == "calm":
            if not settings.fault:
                return "scoring every row", "nothing more: load this machine to see an alert; Ctrl-C ends it"
            following = f"a fault: {self._fault_text}"
            if self._calm_since is None:
                left_s = settings.calm_at_most_s - (now - (self._scoring_since or now))
                if self._acceptances < _ACCEPTANCES and self._alert_since is not None:
                    left_s = settings.patience_s - (now - self._alert_since)
                    following = "what raised it is accepted as normal, and learned"
                return f"an alert is open; waiting up to {max(0.0, left_s):.0f} s for it to end", following
            left_s = settings.calm_s - (now - self._calm_since)
            return f"scoring every row; the fault begins in {max(0.0, left_s):.0f} s", following
        if self.phase == "fault":
            left_s = settings.fault_s - (now - (self._fault_began or now))
            came = "" if self.detected_after_s is None else f"its alert came after {self.detected_after_s:.1f} s; "
            return f"making a fault: {self._fault_text}, {max(0.0, left_s):.0f} s left", f"{came}it ends by itself"
        came = self.outcome if self.detected_after_s is None else f"its alert came after {self.detected_after_s:.1f} s"
        return f"the fault is over; {came}", "watching on; Ctrl-C ends everything that was started"
