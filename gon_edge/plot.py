"""Scores as a picture."""
