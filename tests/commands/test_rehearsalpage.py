"""The page of a rehearsal: pictures and tables, foreign text escaped, nothing that runs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from gon_edge.commands.rehearsalpage import rehearsal_page
from gon_edge.commands.rehearsed import Fault, Rehearsed
from gon_edge.daemon.rehearsal import Answered, Course, Told, Trained
from gon_edge.state.history import RetrainRecord

START = 1_700_000_000.0
HOSTILE = "</svg><script>alert(1)</script>"


class Played:
    """What a rehearsal leaves behind."""

    def __init__(self, **courses: Course) -> None:
        self.courses = courses
        self.unheard: dict[str, int] = {}


def course(rows: int) -> Course:
    found = Course(rows=rows + 600)
    for row in range(rows):
        found.timestamps.append(START + 60.0 * row)
        found.scores.append(9.0 if row == 40 else 1.0)
        found.thresholds.append(4.0 if row < 50 else 6.0)
        found.in_alarm.append(row == 40)
    return found


def told(kind: str, at: float) -> Told:
    cause = {"feature": HOSTILE, "value": 1.0, "expected": 2.0, "contribution": 0.5}
    plain = {"id": "a", "type": kind, "kind": "anomaly", "stream": HOSTILE, "since": START, "timestamp": at}
    return Told(at, {**plain, "score": 9.0, "severity": "critical", "top_features": [cause]})


def result(faults: list[Fault] | None = None) -> Rehearsed:
    found = Rehearsed(faults)
    found.add(Trained(START, RetrainRecord(HOSTILE, "1", START, 2.0, "promoted", 1, 600, ""), 4.0))
    found.add(Trained(START + 3000.0, RetrainRecord(HOSTILE, "", START, 2.0, "rejected", 1, 600, HOSTILE), None))
    found.add(told("new", START + 60.0))
    found.add(told("end", START + 600.0))
    found.add(Answered(START, {"do": "accept", "stream": HOSTILE}, None, HOSTILE))
    return found


def picture(page: str) -> ET.Element:
    return ET.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


def test_a_page_shows_scores_thresholds_alerts_trainings_and_answers() -> None:
    page = rehearsal_page("pump.csv", Played(**{HOSTILE: course(1500)}), result())  # type: ignore[arg-type]
    texts = [element.text or "" for element in picture(page).iter("text")]
    assert any("highest score" in text and "9" in text for text in texts)
    assert "threshold" in texts
    assert "critical anomaly" in page
    assert "rejected" in page
    assert "what was asked meanwhile" in page.lower()
    assert "known fault" not in page


def test_foreign_text_is_text_and_the_page_forbids_itself_everything_but_its_style() -> None:
    page = rehearsal_page(HOSTILE, Played(**{HOSTILE: course(100)}), result())  # type: ignore[arg-type]
    assert "<script" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert len(re.findall(r"<style>", page)) == 1
    assert " style=" not in page


def test_known_faults_are_marked_and_alerts_that_touch_none_are_called_false() -> None:
    played = Played(**{HOSTILE: course(100)})
    known = rehearsal_page("x", played, result([Fault(START, START + 60.0, "")]))  # type: ignore[arg-type]
    false = rehearsal_page("x", played, result([Fault(START + 4000.0, START + 4060.0, "")]))  # type: ignore[arg-type]
    assert "none: false" in false
    assert "none: false" not in known
    assert "1 of 1 found" in known


def test_a_single_judged_row_and_none_are_a_page_too() -> None:
    assert "<svg" in rehearsal_page("x", Played(pump=course(1)), Rehearsed())  # type: ignore[arg-type]
    page = rehearsal_page("x", Played(pump=Course(rows=5)), Rehearsed())  # type: ignore[arg-type]
    assert "No row was judged" in page
    assert "<svg" not in page
