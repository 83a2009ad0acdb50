"""A network small enough to count by hand, registered in the benchmark for the duration of a test."""

from torch import nn

from tresnet_downstream.benchmark.networks import NETWORKS, NUM_CLASSES, Network, Published

CHANNELS = 8


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.fc = nn.Linear(CHANNELS, NUM_CLASSES)

    def forward(self, x):
        return self.fc(self.conv(x).sigmoid().mean((2, 3)))


def register(monkeypatch, name="tiny", build=Tiny, **options):
    options = {"published": {64: Published(50.0, "a test")}, **options}
    monkeypatch.setitem(NETWORKS, name, Network(build, **options))
    return name
