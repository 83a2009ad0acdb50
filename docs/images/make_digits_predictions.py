"""Draws the README's image: python docs/images/make_digits_predictions.py, after make demo."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tresnet_downstream import load_model, predict
from tresnet_downstream.registry import DATASETS
from tresnet_downstream.running.config import load_config

CONFIG, CHECKPOINT = "configs/digits_tresnet.py", "work_dirs/digits_tresnet/best.pth"
COUNT = 12


def main() -> None:
    """Scores the first validation images and writes digits_predictions.jpg beside this file."""
    config = load_config(CONFIG)
    data = DATASETS.build(config.val_dataloader.dataset)
    samples = [data[index] for index in range(COUNT)]
    folder = Path(config.data_root) / config.val_images
    probabilities = predict(load_model(CHECKPOINT), [folder / sample["image"] for sample in samples])
    figure, axes = plt.subplots(2, COUNT // 2, figsize=(12, 5), dpi=90, layout="constrained")
    for axis, sample, row in zip(axes.flat, samples, probabilities, strict=True):
        image = plt.imread(folder / sample["image"])
        predicted = [name for name, p in zip(data.classes, row, strict=True) if p > config.threshold]
        annotated = [name for name, target in zip(data.classes, sample["targets"], strict=True) if target == 1]
        axis.imshow(image)
        axis.set_axis_off()
        colour = "#1a7f37" if predicted == annotated else "#c62828"
        wrong = "" if predicted == annotated else f"\nannotated: {' '.join(annotated)}"
        axis.set_title(f"predicted: {' '.join(predicted)}{wrong}", fontsize=11, color=colour)
    figure.savefig(Path(__file__).with_name("digits_predictions.jpg"))


if __name__ == "__main__":
    main()
