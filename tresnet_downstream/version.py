"""The version of the package, for `pyproject.toml` and for every module."""

__version__ = "0.1.0"
