"""MQTT, with one way to connect.

`connection` connects, for the daemon's `client`, for ``links/publisher`` and for the doctor.  `queue` (in) and `outbox`
(out) are bounded and lie between the network thread and the others.
"""
