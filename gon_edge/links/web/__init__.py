"""The HTTP port: `server` moves bytes, `guard` decides who may read, `api` turns a snapshot into JSON, and ``static/``
holds the status page.  Nothing can be changed through it.
"""
