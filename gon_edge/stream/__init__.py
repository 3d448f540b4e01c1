"""Messages to alerts: decode, align, judge, decide.  Pure: the same messages give the same alerts, live or replayed.

May import: `model`, `config`, events, errors.  Must never know a socket, thread, database, logger, metric or clock:
time is an argument.
"""
