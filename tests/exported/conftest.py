"""The exports that the tests of `deployment/` make, too."""

from deployment.conftest import exported, pictures

__all__ = ["exported", "pictures"]
