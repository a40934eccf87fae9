"""A page for each run: one HTML file that needs no server and no network.

`sheet.py` says what a page has; who makes a run fills it in. `browser/` has what a browser does with it.
"""
