"""The CI workflow runs existing targets of the Makefile, with all supported versions of Python."""

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))


def commands(job):
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


@pytest.mark.parametrize("job", sorted(JOBS))
def test_each_command_is_a_target_of_the_makefile(job):
    assert commands(job)
    for command in commands(job):
        program, *words = command.split()
        targets = [word for word in words if "=" not in word]
        assert program == "make"
        assert targets
        assert set(targets) <= TARGETS
        for variable in (word.split("=")[0] for word in words if "=" in word):
            assert re.search(rf"^{variable} \?=", MAKEFILE, re.MULTILINE), variable


def test_the_tests_run_with_every_python_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [word.rsplit(" ", 1)[1] for word in project["classifiers"] if re.search(r"Python :: 3\.\d", word)]
    assert JOBS["tests"]["strategy"]["matrix"]["python"] == named
    assert named[0] in project["requires-python"]


def test_every_target_is_phony_and_has_its_line_in_make_help():
    phony = set(re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE).group(1).split())
    assert phony == TARGETS
    assert set(re.findall(r'@echo "make ([\w-]+) ', MAKEFILE)) == phony - {"help"}
