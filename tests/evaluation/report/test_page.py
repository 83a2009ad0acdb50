"""The page of reports in a real browser: it works, logs no errors, and makes no network requests."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from evaluation.small_runs import ODD_NAMES, detection_run, joint_run, multilabel_run
from evaluation.test_explanations import explained
from running.small_data import DIGITS, ROOT, call

from tresnet_downstream.evaluation import write_multilabel_run, write_report

pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDE, NARROW = 1280, 390


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window; the tests that need it are skipped where it is not installed."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        message = "needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
        pytest.fail(message) if os.environ.get("NEEDS_BROWSER") else pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


class Page:
    """A report in the browser, at one width."""

    def __init__(self, browser, folder, width=WIDE):
        self.browser = browser
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get((folder / "report.html").resolve().as_uri())

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def rows(self):
        """Names of the classes that the table shows, from the top."""
        return [row.text for row in self.all("table[data-classes-table] tbody th") if row.is_displayed()]

    def column(self, place):
        return [row.text for row in self.all(f"table[data-classes-table] tbody tr > :nth-child({place + 1})")]

    def sort(self, place):
        self.all("table[data-classes-table] thead button")[place].click()

    def curve(self, chart, name):
        """The path of a line, and the title of its figure."""
        (figure, *_) = self.all(f'figure[data-chart="{chart}"]')
        line = figure.find_element(By.CSS_SELECTOR, f'[id$="-{name}"] path')
        return line.get_attribute("d"), figure.find_element(By.TAG_NAME, "h3").text

    def complaints(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self):
        """What was asked for, apart from the page itself and what it holds."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:"))]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The report of two runs whose classes have odd names."""
    folder = tmp_path_factory.mktemp("odd")
    multilabel_run(folder / "a")
    multilabel_run(folder / "b", seed=1)
    write_report([folder / "a"], folder / "one", resamples=100)
    write_report([folder / "a", folder / "b"], folder / "two", resamples=100)
    nothing = np.zeros((120, len(ODD_NAMES)), np.int8)
    multilabel_run(folder / "empty", targets=nothing)
    write_report([folder / "empty"], folder / "without", resamples=0)
    return folder


@pytest.fixture(scope="module")
def boxes_report(tmp_path_factory):
    """The reports of a detector, and of one that finds nothing."""
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    folder = tmp_path_factory.mktemp("boxes")
    detection_run(folder / "run")
    write_report([folder / "run"], folder / "report", resamples=100)
    detection_run(folder / "blind", predictions={"bbox": []})
    write_report([folder / "blind"], folder / "nothing", resamples=0)
    return folder


@pytest.fixture(scope="module")
def joint_report(tmp_path_factory):
    """The report of a network that gives labels and boxes."""
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    folder = tmp_path_factory.mktemp("joint")
    joint_run(folder / "run")
    write_report([folder / "run"], folder / "report", resamples=100)
    return folder


@pytest.fixture(scope="module")
def digits_report(tmp_path_factory):
    """What `make demo` ends with, of a shorter training on fewer pictures."""
    folder = tmp_path_factory.mktemp("digits")
    maker = [sys.executable, ROOT / "data" / "make_digits.py", "--out", folder / "digits"]
    subprocess.run([*maker, "--train", "320", "--val", "80"], check=True, stdout=subprocess.DEVNULL)
    options = ["--cfg-options", f"data_root={folder / 'digits'}", "num_workers=0"]
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", folder / "work", *options, "max_epochs=1"])
    assert status == 0, err
    arguments = [DIGITS, folder / "work" / "best.pth", "--work-dir", folder / "work", "--report", folder / "report"]
    status, out, err = call("test_multilabel", [*arguments, *options])
    assert status == 0, err
    assert out.splitlines()[-4] == f"wrote {folder / 'report' / 'report.html'}"
    return folder / "report"


def work_through(browser, folder, good=True):
    """Sorts, filters and chooses as a reader would, and looks at what happens; ``good`` if every class is found."""
    page = Page(browser, folder)
    names = page.rows()
    assert len(names) > 1
    page.sort(0)
    assert page.rows() == browser.execute_script(
        "return arguments[0].map((name) => name.toLowerCase()).sort((a, b) => a.localeCompare(b))"
        ".map((small) => arguments[0].find((name) => name.toLowerCase() === small))",
        names,
    )
    page.sort(1)
    numbers = [float(text.replace(",", "")) for text in page.column(1) if text != "\N{EN DASH}"]
    assert numbers == sorted(numbers, reverse=True)
    page.sort(1)
    again = [float(text.replace(",", "")) for text in page.column(1) if text != "\N{EN DASH}"]
    assert again == sorted(numbers)

    (field,) = page.all("[data-filter]")
    field.send_keys(names[0].upper())
    assert names[0] in page.rows()
    assert len(page.rows()) <= len(names)
    field.clear()
    field.send_keys("no class is called so")
    assert page.rows() == []
    assert page.all("[data-count]")[0].text == f"0 of {len(names)} classes"
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    assert set(page.rows()) == set(names)

    (chooser,) = page.all("[data-choose]")
    before = {}
    for name in names[:3]:
        Select(chooser).select_by_visible_text(name)
        for chart, line in (("precision-recall", "curve-0"), ("thresholds", "f1")):
            path, title = page.curve(chart, line)
            assert title.endswith(f": {name}")
            assert path.startswith("M") or not good
            before[chart] = path
        (selected,) = page.all('table[data-classes-table] tr[aria-selected="true"] th')
        assert selected.text == name
    Select(chooser).select_by_visible_text("all classes together")
    assert page.curve("precision-recall", "curve-0")[0] != before["precision-recall"] or not good
    page.all("table[data-classes-table] tbody tr")[-1].click()
    assert page.curve("thresholds", "f1")[1].endswith(f": {page.rows()[-1]}")
    assert page.complaints() == []
    assert page.requests() == []

    page = Page(browser, folder, NARROW)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= NARROW
    assert all(image.get_property("naturalWidth") for image in page.all("img"))
    assert page.complaints() == []


@pytest.mark.parametrize("report", ["odd/one", "odd/two", "boxes_report/report"])
def test_a_reader_can_sort_filter_and_choose(browser, request, report):
    fixture, _, name = report.partition("/")
    work_through(browser, request.getfixturevalue(fixture) / name)


@pytest.mark.parametrize("report", ["odd/without", "boxes_report/nothing"])
def test_a_page_whose_curves_are_empty_still_works(browser, request, report):
    fixture, _, name = report.partition("/")
    page = Page(browser, request.getfixturevalue(fixture) / name)
    for option in page.all("[data-choose] option"):
        option.click()
        assert page.curve("precision-recall", "curve-0")[1].endswith(option.get_attribute("textContent"))
    assert page.all("tr[aria-selected=false]")
    page.sort(0)
    assert page.complaints() == []


@pytest.mark.slow
def test_the_report_of_the_digits_works(browser, digits_report):
    work_through(browser, digits_report)
    page = Page(browser, digits_report)
    assert sorted(page.rows()) == list("0123456789")
    assert len(page.all(".gallery img")) > 10


@pytest.mark.skipif("REPORTS" not in os.environ, reason="REPORTS names folders of reports to open, parted by colons")
def test_reports_that_are_named_work(browser, tmp_path):
    for folder in os.environ["REPORTS"].split(os.pathsep):
        work_through(browser, tmp_path / folder, good=False)


def test_each_part_of_a_report_of_labels_and_boxes_follows_its_own_choice(browser, joint_report):
    page = Page(browser, joint_report / "report")
    labels, boxes = page.all("[data-choose]")
    before = [
        line.get_attribute("d") for line in page.all('figure[data-chart="precision-recall"] [id$="-curve-0"] path')
    ]
    Select(boxes).select_by_index(len(Select(boxes).options) - 1)
    after = [
        line.get_attribute("d") for line in page.all('figure[data-chart="precision-recall"] [id$="-curve-0"] path')
    ]
    assert len(before) == len(after) == 2
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert Select(labels).first_selected_option.text != ""
    assert page.complaints() == []
    assert page.requests() == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_maps_stand_below_their_image_at_any_width(browser, tmp_path, width):
    write_multilabel_run(explained(multilabel_run(tmp_path / "run")), tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    page = Page(browser, tmp_path / "report", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert all(image.get_property("naturalWidth") for image in page.all("img"))
    cards = page.all(".card:has(.map)")
    assert cards
    for card in cards:
        image, *maps = (image.rect for image in card.find_elements(By.TAG_NAME, "img"))
        assert all(heat["y"] >= image["y"] + image["height"] for heat in maps)
        assert all(heat["width"] / heat["height"] == pytest.approx(80 / 60, rel=0.05) for heat in (image, *maps))
    assert page.complaints() == []
    assert page.requests() == []


def shown(page):
    return [card for card in page.all(".card") if card.is_displayed()]


@pytest.mark.parametrize("report", ["odd/one", "boxes_report/report"])
@pytest.mark.slow
def test_a_click_on_a_class_shows_the_images_that_have_it(browser, request, report):
    fixture, _, name = report.partition("/")
    page = Page(browser, request.getfixturevalue(fixture) / name)
    cards = shown(page)
    assert len(cards) > 5
    assert not page.all(".bar")[0].is_displayed()
    for selector in ("table[data-classes-table] tbody tr", "svg circle.dot", "svg .cell", "table tr[data-classes]"):
        for target in page.all(selector)[:3]:
            browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", target)
            wanted = set(target.get_attribute("data-classes").split())
            of_classes = [card for card in cards if wanted <= set(card.get_attribute("data-classes").split())]
            assert shown(page) == of_classes
            assert page.all(".none")[0].is_displayed() == (not of_classes)
            assert page.all(".bar output")[0].text.endswith(f": {len(of_classes)} of {len(cards)} images")
            assert target.get_attribute("aria-selected") == "true"
    page.all(".bar button")[0].click()
    assert shown(page) == cards
    assert not page.all(".bar")[0].is_displayed()
    assert page.complaints() == []


def test_a_click_on_an_image_enlarges_it(browser, odd):
    page = Page(browser, odd / "one")
    image = page.all(".image[role=button]")[0]
    assert 280 <= image.rect["width"] <= 400
    browser.execute_script("arguments[0].scrollIntoView()", image)
    image.click()
    (large,) = page.all("dialog[open] img")
    assert large.rect["width"] > 1.5 * image.rect["width"]
    assert large.get_attribute("src") == image.find_element(By.TAG_NAME, "img").get_attribute("src")
    page.all("dialog[open] button")[0].click()
    assert not page.all("dialog[open]")


def test_the_contents_lead_to_every_section_and_provenance_is_folded(browser, odd):
    page = Page(browser, odd / "two")
    links = page.all("nav a")
    assert [link.get_attribute("href").rpartition("#")[2] for link in links] == [
        section.get_attribute("id") for section in page.all("section")
    ]
    assert links[0].text == "Scores"
    (table,) = page.all("details table")
    assert not table.is_displayed()
    page.all("summary")[0].click()
    assert "work/best.pth" in table.text


def test_a_table_that_is_too_wide_says_so(browser, odd):
    page = Page(browser, odd / "two", NARROW)
    page.all("summary")[0].click()
    for box in page.all(".table"):
        scroll = box.find_element(By.CSS_SELECTOR, ".scroll")
        too_wide = scroll.get_property("scrollWidth") > scroll.get_property("clientWidth") + 1
        assert ("overflows" in box.get_attribute("class")) == too_wide
    assert page.all(".table.overflows")


def test_of_many_classes_a_page_shows_some_and_finds_all(browser, tmp_path):
    names = [f"kind {number:03}" for number in range(250)]
    multilabel_run(tmp_path / "run", num_images=20, classes=names)
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    page = Page(browser, tmp_path / "report")
    assert len(page.rows()) == 100
    assert page.all("[data-count]")[0].text == "250 of 250 classes, 100 are shown"
    page.all("[data-filter]")[0].send_keys("kind 24")
    assert sorted(page.rows()) == names[240:250]
    assert page.complaints() == []


def test_charts_have_one_type_size(browser, boxes_report):
    Page(browser, boxes_report / "report")
    sizes = {
        round(float(size), 1)
        for size in browser.execute_script(
            "return [...document.querySelectorAll('figure svg text')].map((text) =>"
            " parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))"
        )
    }
    assert max(sizes) - min(sizes) < 0.4, sizes


def test_class_names_are_shown_as_text(browser, odd):
    page = Page(browser, odd / "one")
    assert sorted(page.rows()) == sorted(ODD_NAMES)
    assert page.browser.title.startswith("Multi-label evaluation")
    assert not page.all("table[data-classes-table] script")
    options = [option.get_attribute("textContent") for option in page.all("[data-choose] option")]
    assert options == [*ODD_NAMES, "all classes together"]
    drawn = " ".join(text.get_attribute("textContent") for text in page.all("svg text"))
    for name in ("<script>document.title", "كلب صغير", "自転車に乗る人", "cash $x_1$ | pipe"):
        assert name in drawn
    # Text from right to left stays within its cell.
    (cell,) = [cell for cell in page.all("table[data-classes-table] tbody th bdi") if cell.text == "كلب صغير"]
    assert page.browser.execute_script("return getComputedStyle(arguments[0]).unicodeBidi", cell) == "isolate"


def test_the_iou_of_a_detectors_curve_can_be_chosen(browser, boxes_report):
    page = Page(browser, boxes_report / "report")
    (choice,) = page.all("[data-choice]")
    assert [option.text for option in Select(choice).options] == [f"{0.5 + 0.05 * step:.2f}" for step in range(10)]
    loose = page.curve("precision-recall", "curve-0")[0]
    Select(choice).select_by_visible_text("0.75")
    assert page.curve("precision-recall", "curve-0")[0] != loose


def test_everything_can_be_read_without_the_script(browser, odd, tmp_path):
    page = (odd / "one" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(page.replace("script-src 'unsafe-inline'", "script-src 'none'"))
    still = Page(browser, tmp_path)
    assert len(still.rows()) == len(ODD_NAMES)
    assert not still.all(".controls")[0].is_displayed()
    path, title = still.curve("precision-recall", "curve-0")
    assert path.startswith("M")
    assert not title.endswith(": ")


def test_the_page_follows_the_readers_colours_and_prints_dark_on_light(browser, odd):
    page = Page(browser, odd / "one")

    def paper(**media):
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        colour = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(",")) / 3

    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    assert paper(**dark) < 40
    assert paper(media="print", **dark) > 250
    assert paper(media="", features=[]) > 250
