"""Runs on this machine, with the same processes that Azure ML would start."""
