"""The HTTP port.  Nothing can be changed through it.

`server` moves bytes, `guard` decides who may read, `api` turns a snapshot into JSON, and ``static/`` holds the status
page.
"""
