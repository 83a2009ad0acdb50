# One virtual environment, built once; each target installs only what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := pyproject.toml requirements.lock mmcv_ext/pyproject.toml mmcv_ext/_ext.py
# What is installed where a target's name is not the whole of it: MMDetection's operators stand beside an extra.
EXTRAS_demo-detection := digits,detection
EXTRAS_benchmark := timm
BESIDE_demo-detection := --editable ./mmcv_ext
BESIDE_dev := --editable ./mmcv_ext
# Processes that run the tests, each with whole files and one thread; in turn with 0.
WORKERS ?= 2
TESTS := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# Albumentations would ask the network for a newer version of itself.
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help demo demo-detection benchmark test test-all fuzz soak lint audit lock docs clean

help:
	@echo "make demo   trains on the embedded digits, prints the mAP table and writes a report"
	@echo "make demo-detection  the same for a detector: AP table, pictures with boxes, report"
	@echo "make benchmark  speed and memory of TResNet-M, timm's and ResNet-50, side by side; some three minutes"
	@echo "make test   lint, types and the tests but for the slow ones; at most 8 minutes on two cores"
	@echo "make test-all  lint, types and every test"
	@echo "make fuzz   kills trainings and damages files, many times each; some hours on two cores"
	@echo "make soak   trains for an hour; fails if memory or open files grow"
	@echo "make lint   ruff, mypy and the layers of the package alone"
	@echo "make audit  asks PyPI for known vulnerabilities of the packages in requirements.lock"
	@echo "make docs   builds the documentation into build/site, which needs no network to be read"
	@echo "make lock   writes requirements.lock from pyproject.toml"
	@echo "make clean  removes the environment and what demo made"

demo: $(VENV)/digits.installed
	$(BIN)/tresnet demo

demo-detection: $(VENV)/demo-detection.installed
	$(BIN)/tresnet demo detection

benchmark: $(VENV)/benchmark.installed
	$(BIN)/python tools/benchmark.py networks --forms eager fused --peer timm_tresnet_m --out work_dirs/benchmark

test: lint $(VENV)/beside.installed
	$(TESTS) -m "not slow"

test-all: lint $(VENV)/beside.installed
	$(TESTS)

# -rP: prints how many trainings were killed, and what they lost.
fuzz: $(VENV)/dev.installed
	TRESNET_KILLS=100 TRESNET_MUTATIONS=2000 $(BIN)/python -m pytest -m faults -rP

soak: $(VENV)/dev.installed
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py epochs --minutes 15
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py epochs --minutes 15 --task detection
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py trainings --count 300

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check tresnet_downstream mmcv_ext tools tests data
	$(BIN)/mypy
	$(BIN)/lint-imports

# --strict: a package that the service does not know is an error, not a package without faults.
audit: $(VENV)/bin/python
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

lock: $(VENV)/bin/python
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--extra dev --extra export pyproject.toml mmcv_ext/pyproject.toml --output-file requirements.lock

# Every warning, such as a link without a page, is an error.
docs: $(VENV)/docs.installed
	$(BIN)/python docs/make_options.py
	$(BIN)/python docs/make_config_keys.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

clean:
	rm -rf $(VENV) data/digits work_dirs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("needs Python 3.10 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Packages that tests combine with the network, in a folder that only those tests look into.
$(VENV)/beside.installed: tests/backbones/packages.txt $(VENV)/dev.installed
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --upgrade --target $(VENV)/beside --requirement $<
	@touch $@

# The lock pins versions; pyproject.toml says which of them a target needs.
$(VENV)/%.installed: $(SETUP) | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint requirements.lock --editable '.[$(or $(EXTRAS_$*),$*)]' $(BESIDE_$*)
	@# MMEngine and Albumentations each bring a build of OpenCV into one folder; the one without a display must win.
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint requirements.lock --no-deps \
		--force-reinstall opencv-python-headless
	@touch $@
