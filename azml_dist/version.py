"""The version of this package, for every part that shows it."""

__version__ = "0.1.0"
