"""Links, images, navigation and generated pages of the documentation."""

import doctest
import importlib
import importlib.util
import re
import sys
from types import SimpleNamespace
from unittest import mock
from urllib.parse import unquote

import pytest
import yaml
from docs.pages import DOCS, PAGES, ROOT, name_of, prose

from tresnet_downstream.running import top_level

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(([^)\s]+)\)")
WEB = ("https://", "http://", "mailto:")
API = sorted(
    re.findall(r"^::: (\S+)", "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md")), re.MULTILINE)
)
PACKAGES = (
    *("", ".backbones", ".classification", ".evaluation", ".evaluation.report", ".deployment"),
    *(".exported", ".weights", ".formats"),
)
# Widest line of prose; tables, images and blocks may be wider.
WIDTH = 134


def anchors(page):
    """The anchors of a page's headings, as Markdown's `toc` and GitHub make them."""
    titles = [match[1] for _, line in prose(page) if (match := re.match(r"#+ (.+)", line))]
    names = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", name).strip()) for name in names}


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/README.md")}), ids=name_of)
def test_links_lead_to_pages_anchors_and_images_that_exist(page):
    for number, line in prose(page):
        for target in LINK.findall(line):
            if target.startswith(WEB):
                continue
            path, _, anchor = unquote(target).partition("#")
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), f"{name_of(page)}, line {number}: there is no {target}"
            if anchor:
                assert anchor in anchors(other), f"{name_of(page)}, line {number}: there is no heading {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=name_of)
def test_pages_of_the_site_link_within_the_site(page):
    for number, line in prose(page):
        for target in LINK.findall(line):
            other = (page.parent / target.partition("#")[0]).resolve()
            assert target.startswith(WEB) or other.is_relative_to(DOCS), f"{name_of(page)}, line {number}: {target}"


def files_of(node):
    if isinstance(node, str):
        return [node]
    items = node.values() if isinstance(node, dict) else node
    return [file for item in items for file in files_of(item)]


def test_the_navigation_has_every_page_once():
    files = files_of(SITE["nav"])
    assert sorted(files) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_of_prose_are_not_wider_than_a_screen(page):
    wide = [
        f"{name_of(page)}, line {number}"
        for number, line in prose(page)
        if len(line) > WIDTH and not line.startswith(("|", "!["))
    ]
    assert not wide or page.name == "architecture.md", wide


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_an_image_is_an_image_and_a_web_page_is_a_link(page):
    text = re.sub(r"`[^`]*`", "", "\n".join(line for _, line in prose(page)))
    if page.name not in ("architecture.md", "options.md"):  # the second is the text of the commands
        assert re.findall(r"\b[Pp]ictures?\b", text) == []
    for _, line in prose(page):
        for source in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", line):
            assert not source.startswith(WEB), f"{name_of(page)}: {source} is read from a server"


def resolved(name):
    """The object of a dotted name: the longest module, and attributes below it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"there is no {name}")


@pytest.mark.parametrize("name", API)
def test_the_api_reference_names_what_exists_and_says_what_it_does(name):
    thing = resolved(name)
    assert (thing.__doc__ or "").strip() or not callable(thing)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_api_reference_has_every_public_name(package):
    module = importlib.import_module(f"tresnet_downstream{package}")
    listed = {name.rpartition(".")[2] for name in API}
    assert set(module.__all__) - listed - {"__version__", "FORMATS", "format_of", "read_class_folders"} == set()


def generator(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_config_keys_is_that_of_the_configs():
    module = generator("make_config_keys")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/make_config_keys.py"


def test_every_key_that_code_reads_is_on_the_page_of_config_keys():
    keys = re.findall(r"^\| `(\w+)` \|", (DOCS / "config_keys.md").read_text(), re.MULTILINE)
    groups = ("PARTS", "READ_IN_BOTH", "READ_OF_CLASSIFIERS", "READ_OF_DETECTORS")
    read = {key for group in groups for key in getattr(top_level, group)}
    assert read - set(keys) == set()


def test_a_missing_heading_fails_the_check(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nSee [there](page.md#nowhere).\n\n## `fuse` and its *limits*\n")
    assert anchors(page) == {"a-page", "fuse-and-its-limits"}


def test_the_site_reads_nothing_from_other_servers():
    assert SITE["theme"]["font"] is False
    assert "offline" in SITE["plugins"]
    # Without this name among them, the plugin adds a script of another server.
    assert any("iframe-worker" in file for file in SITE["extra"]["polyfills"])
    files = [*SITE["extra"]["polyfills"], *SITE["extra_css"]]
    assert [file for file in files if not (DOCS / file).is_file()] == []
    assert [file for file in files if "://" in (DOCS / file).read_text()] == []


def test_docstrings_are_shown_in_markdown():
    with mock.patch.dict(sys.modules, {"griffe": SimpleNamespace(Extension=object, Object=object)}):
        result = doctest.testmod(generator("api/docstrings"))
    assert (result.failed, result.attempted > 0) == (0, True)
