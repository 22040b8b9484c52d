"""The complete history of a Git repository: read, indexed, searched, learned from, on your own machine."""

__version__ = "0.1.0"
