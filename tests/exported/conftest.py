"""The exported files of the tests of `deployment/`."""

from deployment.conftest import exported, pictures

__all__ = ["exported", "pictures"]
