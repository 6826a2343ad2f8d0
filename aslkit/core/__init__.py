"""The two nouns, what was measured, errors, and the array backend: everything builds on these."""
