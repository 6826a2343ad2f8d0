"""Random numbers -> brains, scanners and scans with known truth.

The main path has two branches. They share the anatomy: `anatomy`, `template`, `vessels`, `lesions`
and `random_fields`.

- `phantoms`, `signal`, `scanner`, `artefacts`, `subject_physics`, `bids_writer`: whole volumes,
  for `asl_sim` and `asl_validate`.
- `training_protocols`, `training_scans`: slices on which the default model is trained.

`fixed_protocol` serves only the experiments with networks of raw curves (docs/experiments.md) and
models for one protocol of your own.
"""
