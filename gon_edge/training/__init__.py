"""How a model is found, judged and put in use, in the order in which it happens.

May import: `links.control` (to ask a running daemon), `state` and everything below.  Must never know the daemon: the
trainer starts the child as a process, and neither loads torch, scipy, sklearn or pandas.
"""
