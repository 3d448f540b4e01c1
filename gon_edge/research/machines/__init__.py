"""Made machines: readings at known times with faults at known times, days to weeks of them, a seed each.

Two days of one machine are never alike: weather, people and chance differ.  Same seed, same rows.  Pure numpy; nothing
here knows a detector.
"""

from gon_edge.research.machines.scenarios import GRADES, SCENARIOS, Recording, record
from gon_edge.research.machines.when import Event

__all__ = ["GRADES", "SCENARIOS", "Event", "Recording", "record"]
