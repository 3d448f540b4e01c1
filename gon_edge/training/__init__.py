"""How a model is found, judged and put in use, in the order in which it happens.

May import: `links.control` (to ask a running daemon), `state` and everything below.  Must never know the daemon, which
is one `site.Site` of two and reaches `child` as a process.  Others use `ask`, `operations`, `schedule` and `fit`.
"""
