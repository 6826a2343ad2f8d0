"""Ways of training other than the default, for the experiments of docs/experiments.md."""
