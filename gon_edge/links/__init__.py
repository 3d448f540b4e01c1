"""The world outside: MQTT, Prometheus, Home Assistant, the HTTP port, the control socket.

May import: `stream` and everything below it.  One link must never know another; only `daemon` sees two at once.
`commands` use `publisher`, `client`, `control` and, for the doctor, `mqtt.connection`; `daemon` uses the rest.
"""
