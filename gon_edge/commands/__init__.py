"""The command line: arguments in, one module called, an exit status out.

May import: everything below, each command only when it runs.  Must never know how the daemon is composed.
The demo uses `arguments`, `draw`, `terminal` and `text`; nobody uses a command.
"""
