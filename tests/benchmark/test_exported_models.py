import pytest

from tresnet_downstream.benchmark.exported_models import compare_exported, markdown
from tresnet_downstream.benchmark.networks import NETWORKS, Network, tresnet
from tresnet_downstream.errors import UserError


@pytest.mark.slow
def test_every_way_to_run_the_network_is_timed_beside_timm(monkeypatch):
    small = Network(tresnet("m", layers=(1, 1, 1, 1), width=0.25), ours=True)
    monkeypatch.setitem(NETWORKS, "small", small)
    monkeypatch.setitem(NETWORKS, "timm_tresnet_m", small)
    rows = compare_exported(size=64, batch_size=2, repeats=1, network="small")
    assert [row.who for row in rows] == [
        "timm_tresnet_m",
        "fuse",
        "ONNX Runtime",
        "OpenVINO",
        "OpenVINO, int8",
    ]
    assert all(row.images_per_second > 0 for row in rows)
    assert rows[0].ratio.median == 1
    assert len(markdown(rows).splitlines()) == 2 + len(rows)


def test_no_repeat_is_refused():
    with pytest.raises(UserError, match="`repeats` 0"):
        compare_exported(repeats=0)
