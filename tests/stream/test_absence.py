"""What a stream lacks, row by row: which features, since when, and for how long they must be back."""

import json

from gon_edge.config.schema import AlertsConfig
from gon_edge.stream.absence import Absences

SETTINGS = AlertsConfig(clear_rows=3)


def names(absences: Absences) -> list[str]:
    lack = absences.lack()
    return [] if lack is None else [cause.feature for cause in lack.causes]


def test_nothing_is_lacked_at_first():
    assert Absences().lack() is None


def test_a_feature_is_lacked_until_it_has_been_back_for_long_enough():
    absences = Absences()
    absences.take(("flow",), 5.0, SETTINGS)
    for t in (6.0, 7.0):
        absences.take((), t, SETTINGS)
        assert names(absences) == ["flow"]
        assert absences.lack().since == 5.0
    absences.take((), 8.0, SETTINGS)
    assert absences.lack() is None


def test_features_share_the_blame_by_name():
    absences = Absences()
    absences.take(("heat", "flow"), 0.0, SETTINGS)
    assert [(cause.feature, cause.contribution) for cause in absences.lack().causes] == [("flow", 0.5), ("heat", 0.5)]


def test_a_feature_that_may_be_away_for_longer_is_lacked_from_then_on():
    patient = AlertsConfig(clear_rows=3, missing_after_s=10.0)
    absences = Absences()
    absences.take(("flow",), 0.0, patient)
    absences.take(("flow",), 9.0, patient)
    assert absences.lack() is None
    absences.take(("flow",), 10.0, patient)
    assert absences.lack().since == 0.0


def test_a_stream_without_rows_lacks_everything_and_that_is_critical():
    absences = Absences()
    absences.take_silence(3.0, ("flow", "heat"))
    assert names(absences) == ["flow", "heat"]
    assert absences.lack().severity == "critical"


def test_a_stream_of_unknown_features_lacks_something_without_a_name():
    absences = Absences()
    absences.take_silence(3.0, ())
    assert absences.lack().causes == ()


def test_it_goes_on_from_its_state():
    absences = Absences()
    absences.take(("flow",), 0.0, SETTINGS)
    absences.take((), 1.0, SETTINGS)
    again = Absences(json.loads(json.dumps(absences.state())))
    for t in (2.0, 3.0):
        assert names(again) == ["flow"]
        again.take((), t, SETTINGS)
    assert again.lack() is None
