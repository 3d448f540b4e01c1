"""The service: every part put together and kept running.

May import: everything below.  Must never hold an algorithm, nor import `training.child`, which is reached by process.
"""
