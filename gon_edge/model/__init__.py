"""One model: the network, its int8 file, and how it judges a stream row by row.  Pure.

May import: errors, events, `process.digest`.  Must never know a socket, thread, database, logger, metric or clock, nor
how a model is found: that is `training`.
"""
