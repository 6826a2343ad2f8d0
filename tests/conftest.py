"""Property tests try the same examples everywhere, and slow machines pass them."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
