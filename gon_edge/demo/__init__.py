"""`gon-edge demo`: the whole way from reading to alert in a few minutes, on this machine, with a broker of its own.

May import: everything below.  Must never be needed by another room: the table of commands names `command` as text.
"""
