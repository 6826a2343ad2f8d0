"""Types that all packages share (series, maps, acquisition), errors, and the array backend."""
