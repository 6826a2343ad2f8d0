"""Kinetic parameters -> ASL signal: all equations."""
