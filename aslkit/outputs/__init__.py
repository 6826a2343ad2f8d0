"""ParameterMaps -> maps, sidecars and derivative data sets on disk, all or none."""
