"""Needs MMDetection, which the extra brings."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")
