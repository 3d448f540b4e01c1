"""What survives a restart: stored rows, alerts and trainings, the folder of models, and the files people bring.

May import: `model`, `config`, `process`, events, errors.  Must never know a network, or what a row means to a stream.
"""
