"""MLflow for the processes of a local run: a server for the run, and the store that it writes."""
