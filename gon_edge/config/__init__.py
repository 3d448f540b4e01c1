"""What a person may set: what each option means (`schema`), how values are written (`values`), the YAML file (`file`).

May import: errors.  Must never know who reads an option, or anything of a running daemon.
"""
