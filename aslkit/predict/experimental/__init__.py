"""Maps by networks of raw curves, for the experiments of docs/experiments.md."""
