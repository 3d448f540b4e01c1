"""The process and the machine it runs on: memory, clocks, the service manager, logs, certificates, child processes.

May import: errors.  Must never know what the daemon computes: no stream, no model, no configuration.
"""
