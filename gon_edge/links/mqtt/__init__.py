"""MQTT: one way to connect (`connection`), for the daemon (`client`), for ``publish``, ``replay`` and ``record``
(``links/publisher``) and for ``doctor``; a bounded `queue` in and a bounded `outbox` out between threads.
"""
