"""AslSeries and ParameterMaps -> what can be said of maps without the truth."""
