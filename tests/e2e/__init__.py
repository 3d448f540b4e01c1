"""End-to-end tests: the daemon against real servers on free loopback ports."""
