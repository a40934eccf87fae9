"""Compares a plan with a real workspace: pure, from facts that other code has read."""
