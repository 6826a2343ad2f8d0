"""Imported first by the process that those of --n-jobs are forks of: it starts as commands do."""

from aslkit.batch.worker_process import collect_garbage_rarely

collect_garbage_rarely()
