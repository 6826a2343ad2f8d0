"""Runs as read -> one calibrated `AslSeries`: the pipeline that all commands share."""
