"""The plots of reports."""

import re
import warnings

from tresnet_downstream.evaluation.report import plots

LONG = [f"{weights}/mAP {folder}/work_dirs/own_config" for weights in ("raw", "averaged") for folder in ("own", "head")]


def test_a_legend_of_long_names_fits_and_tells_them_apart():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns if the legend leaves no room for the axes
        drawing = plots.lines([(name, [1, 2], [30, 31]) for name in LONG], "epoch", "score, %")
    names = re.findall(r">([^<]*mAP[^<]*)<", drawing)
    assert len(set(names)) == len(names) == 4
    short = plots.lines([(name, [1, 2], [30, 31]) for name in "ab"], "epoch", "score, %")
    assert plots.width_of(drawing) == plots.width_of(short)
