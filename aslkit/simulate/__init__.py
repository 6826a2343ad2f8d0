"""Random numbers -> brains, scanners and scans whose truth is known."""
