"""Imported first by the process that those of --n-jobs are forks of: it starts as commands do."""

from aslkit.batch.pools import start_fast

start_fast()
