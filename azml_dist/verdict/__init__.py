"""Why a run failed: a pure function over what is known about each rank, for local runs and runs on Azure ML.

It starts nothing, sends no requests, and needs only the standard library.
"""
