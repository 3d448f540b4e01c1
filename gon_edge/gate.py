"""Whether a new model may replace the one in use: both judge rows of the device's own that neither was fitted on.

Pure numpy, no file, no process: ``train`` runs it in the child, ``retrain`` applies what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FAULTS = ("spike", "offset", "drift", "frozen", "noise", "swapped")
"""Kinds of faults injected into held-out clean rows."""


@dataclass(frozen=True, slots=True)
class GateScores:
    """What one model did on the held-out rows.

    Attributes
    ----------
    alarm_rate : float
        Share of the clean rows above the model's threshold.
    separation : mapping of str to float
        ROC-AUC of injected rows against clean ones, for each kind of fault; empty without held-out rows.
    """

    alarm_rate: float
    separation: Mapping[str, float]

    @property
    def mean_separation(self) -> float:
        """Mean over the kinds; NaN without."""
        return sum(self.separation.values()) / len(self.separation) if self.separation else float("nan")


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict and what it rests on.

    Attributes
    ----------
    passed : bool
    reasons : tuple of str
        Why not, a line each; empty when passed.
    finite : bool
        False: the model must not be used, whoever asks.
    held_out_rows : int
        Clean rows both judged; 0 for a first model, which is judged on the rows it was fitted on.
    challenger : GateScores
    champion : GateScores or None
        None for a first model.
    quantization_error : float
        Largest deviation of the int8 first layer from orthonormal rows.
    model_bytes : int
    latency_s : float
        Median time of one score.
    """

    passed: bool
    reasons: tuple[str, ...]
    finite: bool
    held_out_rows: int
    challenger: GateScores
    champion: GateScores | None
    quantization_error: float
    model_bytes: int
    latency_s: float

    def as_json(self) -> dict[str, Any]:
        """JSON values; :meth:`from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GateReport:
        """The report in :meth:`as_json`'s form.

        Raises
        ------
        KeyError, TypeError
            It is not one.
        """
        champion = values["champion"]
        return cls(
            **{
                **values,
                "reasons": tuple(values["reasons"]),
                "challenger": GateScores(**values["challenger"]),
                "champion": None if champion is None else GateScores(**champion),
            }
        )
