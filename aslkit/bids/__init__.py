"""Files of one scan or data set -> `AslRun`, interpreted and checked."""
