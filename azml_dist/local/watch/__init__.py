"""Watches a run: where its processes are, and whether they make progress."""
