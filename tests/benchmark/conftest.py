import pytest
from benchmark.tiny import register


@pytest.fixture
def tiny(monkeypatch):
    """The name of a network of one convolution and one linear layer."""
    return register(monkeypatch)
