"""The command line: arguments in, one module called, an exit status out.

May import: everything below, each command only when it runs.  Must never know how the daemon is composed.
"""
