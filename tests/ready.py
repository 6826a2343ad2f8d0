"""First import of the process from which worker processes are forked: rare garbage collection."""

from aslkit.batch.worker_process import collect_garbage_rarely

collect_garbage_rarely()
