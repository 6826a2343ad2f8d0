"""Kinetic parameters -> ASL signal: every equation."""
