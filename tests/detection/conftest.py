"""The tests of this folder need MMDetection, from the extra ``detection``."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")
