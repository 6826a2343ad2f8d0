"""Networks, their input and output encodings, and their files."""
