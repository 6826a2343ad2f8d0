"""Networks of raw curves and a bias correction, for the experiments of docs/experiments.md."""
