"""Files of a scan or data set -> an `AslRun`, interpreted and checked."""
