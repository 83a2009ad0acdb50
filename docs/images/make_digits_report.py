"""Takes a picture of the demo's report: python docs/images/make_digits_report.py REPORT.html OUT.jpg.

Needs the extra `dev`, and Chromium with its driver.
"""

import base64
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver

WIDTH, SCALE, MISTAKES = 1240, 0.8, 320


def main(page: str, out: str) -> None:
    """Puts the classes, their curves and the worst mistakes below one another."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.get(Path(page).resolve().as_uri())
    tops = {heading.text: heading.rect["y"] for heading in browser.find_elements("css selector", "h2")}

    def shot(top: float, bottom: float) -> Image.Image:
        clip = {"x": 20, "y": top - 10, "width": WIDTH, "height": bottom - top, "scale": 1}
        asked = {"captureBeyondViewport": True, "format": "png", "clip": clip}
        png = browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
        return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")

    parts = [
        shot(tops["Classes"], tops["Confused classes"]),
        shot(tops["Worst mistakes"], tops["Worst mistakes"] + MISTAKES),
    ]
    browser.quit()
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts)))
    for place, part in enumerate(parts):
        whole.paste(part, (0, sum(before.height for before in parts[:place])))
    whole = whole.resize((round(SCALE * WIDTH), round(SCALE * whole.height)), Image.Resampling.LANCZOS)
    whole.save(out, quality=85, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
