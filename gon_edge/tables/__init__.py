"""The tables people bring: bytes to rows of cells (`csvfile`), cells to numbers (`cells`) and times (`times`), what
each column is (`layout`), and the one reader of all of it (`table`), for every command that takes a file.

May import: `stream`, `events`, errors.  Must never know a model, a store, a network or a command.
"""
