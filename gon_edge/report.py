"""One static page about a stream's last hours."""
