"""Estimates -> how good they are, on phantoms and in vivo."""
