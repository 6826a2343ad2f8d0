"""AslSeries and ParameterMaps -> quality of the maps, without a known truth."""
