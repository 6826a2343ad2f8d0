"""AslSeries -> ParameterMaps by least squares, with standard errors and flags."""
