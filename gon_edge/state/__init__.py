"""What survives a restart: the `store` (its `rows`, packed as `chunk`, its `history`, whole `streams`, its `database`),
the `folder` of models, their `catalog` and `inspection`.

May import: `model`, `config`, `process`, events, errors.  Must never know a network, or what a row means to a stream.
"""
