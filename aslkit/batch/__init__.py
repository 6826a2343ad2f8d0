"""Many scans -> their results, by processes or by a dask cluster."""
