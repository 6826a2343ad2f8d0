"""A training configuration -> a model folder."""
