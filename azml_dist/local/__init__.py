"""Runs on this machine: the world that Azure ML would start, started here."""
