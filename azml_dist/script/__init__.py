"""Compares the training script with the job that starts it. The script is read, but never imported or run."""
