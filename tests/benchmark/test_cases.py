import pytest

from tresnet_downstream.benchmark.cases import groups
from tresnet_downstream.benchmark.networks import NETWORKS
from tresnet_downstream.errors import UserError


def made(networks, tasks=("training",), types=("float32",), forms=("eager",), sizes=("224",), batch=8, device="cpu"):
    return groups(networks, tasks, types, forms, sizes, batch, device)


def test_cases_are_all_combinations_grouped_for_comparison():
    found = made(["tresnet_m", "resnet50"], ["inference", "training"], ["float32", "bfloat16"], ["eager", "compiled"])
    assert [group.title for group in found] == [
        "inference, float32, 224 x 224",
        "inference, bfloat16, 224 x 224",
        "training, float32, 224 x 224",
        "training, bfloat16, 224 x 224",
    ]
    assert [case.label for case in found[0].cases] == [
        "tresnet_m",
        "tresnet_m compiled",
        "resnet50",
        "resnet50 compiled",
    ]


def test_invalid_combinations_are_listed_with_the_reason():
    (training, inference) = made(["tresnet_m", "resnet50"], ["training", "inference"], forms=["eager", "fused"])
    assert [case.label for case in inference.cases] == ["tresnet_m", "tresnet_m fused", "resnet50"]
    assert {case.label: reason for case, reason in inference.obstacles.items()} == {
        "resnet50 fused": "only this toolkit's TResNet can be fused"
    }
    assert {case.label for case in training.obstacles} == {"tresnet_m fused", "resnet50 fused"}


def test_published_is_each_networks_own_size():
    (group,) = made(["tresnet_m", "efficientnet_b1", "resnetrs50"], sizes=["published"])
    assert [case.size for case in group.cases] == [224, 240, 160]


def test_all_is_every_network():
    (group,) = made(["all"])
    assert [case.network for case in group.cases] == list(NETWORKS)


def test_float16_is_measured_on_a_gpu():
    (group,) = made(["tresnet_m"], types=["float16"], device="cuda")
    assert len(group.cases) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ["tresnet_n"]}, "unknown network 'tresnet_n': choose from tresnet_m, "),
        ({"tasks": ["testing"]}, "`tasks` testing: choose from training, inference"),
        ({"types": ["int8"]}, "`types` int8: choose from float32"),
        ({"forms": ["quick"]}, "`forms` quick: choose from eager, compiled, fused"),
        ({"sizes": ["20"]}, "`sizes` 20: give a size in pixels, at least 64"),
        ({"sizes": ["big"]}, "`sizes` big"),
        ({"batch": 0}, "`batch_size` 0"),
        ({"forms": ["fused"]}, "a fused network supports only inference$"),
        ({"forms": ["eager", "fused"]}, "a fused network supports only inference$"),
        ({"types": ["float32", "float16"]}, "float16 is measured only on GPUs; use bfloat16 on a CPU$"),
        (
            {"networks": ["tresnet_m", "tresnet_m_cp"], "tasks": ["inference"]},
            "tresnet_m_cp: checkpointing changes only training$",
        ),
    ],
)
def test_cases_that_cannot_be_measured_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        made(**{"networks": ["tresnet_m"], **changes})
