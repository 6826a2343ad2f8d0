"""AslSeries and a trained model -> ParameterMaps."""
