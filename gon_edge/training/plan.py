"""What a job would take of the rows there are, and in which memory: known before anything is fitted.

The child plans before it reads; ``gon-edge retrain --dry-run`` shows the same plan and starts nothing.  The prediction
of memory follows `fit`, `rows` and `remembered`: who holds more there adds it here, and docs/retraining.md has the
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from gon_edge.training.job import Job
from gon_edge.training.remembered import most_remembered
from gon_edge.training.rows import BATCH_BYTES, batch_windows, most_repeated
from gon_edge.training.settings import FitSettings
from gon_edge.training.source import Source

_BASE_BYTES = 44 << 20
"""Resident memory of a round on next to nothing: interpreter, numpy and its random generators, SQLite, OpenSSL (for a
checksum), linear algebra once used, and the code of the whole fit.  Measured on x86-64."""

FEWEST_WINDOWS = 2
"""Whole windows, side by side, that a model is made of at least.  Not critical: with one, nothing can be compared."""

_ROW_BYTES = 100  # a row's time, age, energies, scores and indices, beside its values
_STEP_WINDOWS, _STEP_COPIES = 64, 9  # windows in an adversarial step, and arrays of their size at its peak
_NETWORKS = 5  # sets of weights at the peak
"""Upper bounds: measured peaks lie 1.5 to 9 % below what they give, on 1 to 500 features and windows of 15 to 100 rows
(docs/retraining.md)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do.

    Attributes
    ----------
    stored_rows : int
        Rows there are.
    quarantined_rows : int
        Of them, rows that must not be learned.
    usable_rows : int
        Rows that may be learned: neither quarantined (unless asked for) nor outside the job's span.
    rows : int
        Rows that are used, spread over the whole span where they are fewer.
    windows : int
        Windows a fit takes from them.
    batch : int
        Windows handled at once.
    features : int
    predicted_peak_bytes, budget_bytes : int
    shrunk : str
        What was made smaller to fit, and why; empty when nothing was.
    refused : str
        Why the job cannot be done; empty when it can.
    """

    stored_rows: int
    quarantined_rows: int
    usable_rows: int
    rows: int
    windows: int
    batch: int
    features: int
    predicted_peak_bytes: int
    budget_bytes: int
    shrunk: str
    refused: str

    @property
    def over_budget(self) -> bool:
        """Whether the memory is what it is refused for."""
        return bool(self.refused) and self.predicted_peak_bytes > self.budget_bytes


def plan(job: Job, source: Source | None = None) -> Plan:
    """What ``job`` would use of the rows in ``source``, by default its own; starts nothing.

    Raises
    ------
    StoreError
        The store cannot be read.
    InputError
        ``rows_file`` cannot be read.
    """
    source = Source(job) if source is None else source
    settings = job.settings
    features = max(1, len(source.features))
    fewest = FEWEST_WINDOWS * settings.window
    fitting = rows_within(job.budget_bytes, features, settings)
    if source.trusted:
        fitting = max(0, fitting - most_repeated(fitting, settings.window))
    if job.champion:
        fitting = max(0, fitting - most_remembered(fitting, features, settings.window))
    rows = min(source.usable, max(job.max_rows, fewest), fitting)
    shrunk = refused = ""
    if rows < source.usable:
        why = "more do not fit the memory budget" if rows == fitting else "as many as retrain.max_rows asks for"
        shrunk = f"{rows} of {source.usable} rows, in blocks spread over their whole span: {why}"
    if source.usable < fewest:
        refused = f"{source.usable} normal rows are stored and {fewest} are needed; wait for more"
    elif rows < fewest:
        rows = fewest
        refused = (
            f"{rows} rows of {features} features need {predicted_peak_bytes(rows, features, settings) >> 20} MiB and "
            f"the budget is {job.budget_bytes >> 20} MiB; raise retrain.memory_budget"
        )
    held = rows + (most_repeated(rows, settings.window) if source.trusted else 0)
    held += most_remembered(rows, features, settings.window) if job.champion else 0
    return Plan(
        stored_rows=source.stored,
        quarantined_rows=source.quarantined,
        usable_rows=source.usable,
        rows=rows,
        windows=min(rows, settings.max_windows),
        batch=batch_windows(settings.window, features),
        features=len(source.features),
        predicted_peak_bytes=predicted_peak_bytes(held, features, settings),
        budget_bytes=job.budget_bytes,
        shrunk=shrunk,
        refused=refused,
    )


def predicted_peak_bytes(rows: int, features: int, settings: FitSettings) -> int:
    """Upper bound of the resident memory of a round on ``rows`` x ``features``, in bytes.

    Rows are held as they came and standardised, both float32; scores, energies and indices of each row beside them.  A
    batch of windows is held as gathered and once more flattened for a scale; the adversarial step holds its windows
    several times over.  Measured against in docs/retraining.md.
    """
    held = rows * (8 * features + _ROW_BYTES)
    batch = 2 * max(BATCH_BYTES, batch_windows(settings.window, features) * settings.window * features * 4)
    step = _STEP_WINDOWS * settings.window * features * 4 * _STEP_COPIES
    networks = _NETWORKS * 4 * settings.hidden * features * sum(settings.scales)
    return _BASE_BYTES + held + max(batch, step) + networks


def rows_within(budget_bytes: int, features: int, settings: FitSettings) -> int:
    """Most rows whose predicted peak is within the budget; 0 when not even one is."""
    fixed = predicted_peak_bytes(0, features, settings)
    each = predicted_peak_bytes(1, features, settings) - fixed
    return max(0, (budget_bytes - fixed) // each)
