"""The pages of runs on this machine, from what is in their folders."""
