"""Draws the picture of docs/explanations.md, from the two checkpoints that it trains, after make demo."""

from pathlib import Path

from PIL import Image

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification.explained_images import explained_picture
from tresnet_downstream.prediction.labels import chosen_classes, labels_of

CHECKPOINTS = ("work_dirs/digits_tresnet/best.pth", "work_dirs/digits_ml_decoder/best.pth")
PICTURE = "data/digits/val/000012.jpg"


def main() -> None:
    """Writes digits_explained.jpg beside this file: a row for each checkpoint."""
    rows = []
    for checkpoint in CHECKPOINTS:
        model = load_model(checkpoint)
        (probabilities,) = predict(model, PICTURE)
        labels, chosen = (
            labels_of(probabilities, model.classes or (), 0.5, None),
            chosen_classes(probabilities, 0.5, None),
        )
        rows.append(explained_picture(model, PICTURE, labels, chosen))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    for place, row in enumerate(rows):
        sheet.paste(row, (0, sum(above.height for above in rows[:place])))
    sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS).save(
        Path(__file__).with_name("digits_explained.jpg"), quality=88, optimize=True
    )


if __name__ == "__main__":
    main()
