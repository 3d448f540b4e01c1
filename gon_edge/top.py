"""A running daemon in a terminal."""
