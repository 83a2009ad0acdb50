import json

import pytest
import torch
from benchmark.tiny import register

from tresnet_downstream.benchmark import devices, runs
from tresnet_downstream.benchmark.cases import groups
from tresnet_downstream.benchmark.devices import Cpu
from tresnet_downstream.benchmark.interleaved import Ratio, Timing
from tresnet_downstream.benchmark.measure import Result, measure
from tresnet_downstream.benchmark.plot import draw_speed_accuracy
from tresnet_downstream.benchmark.tables import content, markdown, write_tables
from tresnet_downstream.errors import UserError


def measured(networks, forms=("eager",), tasks=("training", "inference"), batch_size=2, **options):
    found = groups(networks, tasks, ["float32"], forms, ["64"], batch_size, "cpu")
    return measure(found, Cpu(), 1, **options)


@pytest.mark.slow
def test_results_have_speed_memory_work_and_the_ratio_to_the_peer(tiny, monkeypatch):
    register(monkeypatch, "other")
    told = []
    results = measured([tiny, "other"], peer=tiny, with_largest_batch=True, tell=told.append)
    assert [(result.case.label, result.case.task) for result in results] == [
        (tiny, "training"),
        ("other", "training"),
        (tiny, "inference"),
        ("other", "inference"),
    ]
    for result in results:
        assert result.images_per_second == 2 / result.timing.seconds[0]
        assert result.ratio.median == pytest.approx(
            result.images_per_second / results[0 if result.case.task == "training" else 2].images_per_second
        )
        assert (result.kept is None) == (result.case.task == "inference")
        assert result.macs == 892_736
        assert result.peak > (result.kept or 0) > -1
        assert len(result.alone) == 1
        assert min(result.alone) > 0
        assert (result.share is None) == (result.alone[0] > result.timing.seconds[0])
        assert (result.share is None) == (result.why_share_is_unknown is not None)
        assert result.largest_batch > 1000
        assert result.top1 == 50
    assert told[-1] == "inference, float32, 64 x 64: round 2 of 2"


@pytest.mark.slow
def test_batch_that_does_not_fit_is_reported_with_one_that_does(tiny, monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda: 4_000_000)
    with pytest.raises(
        UserError, match=r"1000 images do not fit into the cpu's memory; (\d+) fit: give `batch_size` \1"
    ) as error:
        measured([tiny], tasks=["training"], batch_size=1000)
    fitting = int(str(error.value).split()[-1])
    (result,) = measured([tiny], tasks=["training"], batch_size=fitting)
    # With the pictures, and gradients and momenta of 9,216 weights, little is left over.
    in_all = result.peak * 2**20 * fitting + fitting * 3 * 64 * 64 * 4 + 2 * 9216 * 4
    assert 0.9 * 4_000_000 < in_all <= 1.02 * 4_000_000
    monkeypatch.setattr(devices, "available_memory", lambda: 4000)
    with pytest.raises(UserError, match="nor does a single image"):
        measured([tiny])


def test_what_cannot_run_is_refused_before_anything_does(tiny, monkeypatch):
    with pytest.raises(UserError, match="`peer` resnet50: is not among"):
        measured([tiny], peer="resnet50")
    monkeypatch.setattr(Cpu, "missing_compiler", lambda self: "a C++ compiler")
    with pytest.raises(UserError, match=r"`forms` compiled needs a C\+\+ compiler"):
        measured([tiny], forms=["compiled"])
    with pytest.raises(UserError, match="`repeats` 0"):
        measure([], Cpu(), 0)


def test_networks_that_fit_alone_but_not_together_are_reported(tiny, monkeypatch):
    def out_of_memory(self, work):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Cpu, "bytes_kept", out_of_memory)
    with pytest.raises(UserError, match="training, float32, 64 x 64: each network fits into memory alone, but not"):
        measured([tiny])


def example(monkeypatch):
    register(monkeypatch, "quick", ours=True)
    found = groups(["quick", "tresnet_m"], ["inference"], ["float32"], ["eager", "fused"], ["64"], 8, "cpu")
    (quick, quick_fused, slow, _) = found[0].cases
    title = found[0].title
    return [
        Result(
            quick,
            title,
            Timing((0.1, 0.2, 0.4)),
            Ratio(2.0, (1.5, 2.5)),
            None,
            3.25,
            64,
            10**9,
            2_500_000,
            (0.08, 0.16, 0.32),
        ),
        Result(quick_fused, title, Timing((0.1,)), None, None, 1.0, None, 10**9, 2_400_000, (0.108,)),
        Result(slow, title, obstacle="it has a reason"),
    ]


def test_markdown_has_a_row_for_each_with_spread_and_ratio(monkeypatch):
    text = markdown(example(monkeypatch), {"processor": "one", "torch": "2"}, "tresnet_m")
    lines = text.splitlines()
    assert lines[0] == "processor: one; torch: 2"
    assert "### inference, float32, 64 x 64" in lines
    # There is no column of bytes kept, which no row has.
    columns = ["network", "size", "batch", "images/s", "x tresnet_m", "peak", "largest batch", "GMACs"]
    assert f"| {' | '.join(columns)} | parameters, M | convolutions alone | top-1 |" in lines
    cells = ["quick", "64", "8", "40 (26.67 to 53.33)", "2.00 (1.50 to 2.50)", "3.2", "64", "1.00"]
    assert f"| {' | '.join(cells)} | 2.5 | 80% (80% to 80%) of the step | 50.0 |" in lines
    assert lines[lines.index("Not run: tresnet_m: it has a reason.") - 1] == (
        "Convolutions alone, quick fused: share unknown: the convolutions alone took 0.108 s, the step 0.1 s: either "
        "the machine was busy (measure again) or the step uses a faster implementation of them."
    )
    assert "| unknown | 50.0 |" in text
    assert "108%" not in text
    assert "Not run: tresnet_m: it has a reason." in lines
    assert lines[-1] == "- top-1: as published, in percent: a test (quick)."


def test_json_has_every_repeat(monkeypatch, tmp_path):
    results = example(monkeypatch)
    paths = write_tables(results, {"processor": "one"}, "tresnet_m", tmp_path / "new")
    assert [path.name for path in paths] == ["table.md", "table.json"]
    read = json.loads(paths[1].read_text())
    assert read == json.loads(json.dumps(content(results, {"processor": "one"}, "tresnet_m")))
    assert (read["format"], read["version"], read["about"]) == ("tresnet_downstream.benchmark", 2, {"processor": "one"})
    first, second, last = read["results"]
    assert first["convolutions_alone_share"] == {
        "median": pytest.approx(0.8),
        "quartiles": pytest.approx([0.8, 0.8]),
    }
    assert second["convolutions_alone_share"] is None
    assert second["convolutions_alone_share_unknown"].startswith("the convolutions alone took 0.108 s")
    assert first["seconds"] == [0.1, 0.2, 0.4]
    assert first["ratio_to_peer"] == {"median": 2.0, "quartiles": [1.5, 2.5]}
    assert (first["network"], first["form"], first["size"], first["not_run"]) == ("quick", "eager", 64, None)
    assert (last["not_run"], last["images_per_second"]) == ("it has a reason", None)


def test_plot_shows_rows_with_a_published_score(monkeypatch, tmp_path):
    from PIL import Image

    results = example(monkeypatch)
    path = tmp_path / "plot.png"
    assert draw_speed_accuracy(results, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(10**6)) > 50
    assert not draw_speed_accuracy(results[2:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_no_share_is_given_for_products_that_are_not_timed_alone(tiny, monkeypatch):
    monkeypatch.setattr(runs, "multiply_adds", lambda network, size: 900_000)
    (result,) = measured([tiny], tasks=["inference"])
    assert result.share is None
    assert result.why_share_is_unknown == "it has matrix products besides its convolutions and linear layers"
