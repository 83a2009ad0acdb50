# One virtual environment, built once; each target installs only what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := pyproject.toml requirements.lock mmcv_ext/pyproject.toml mmcv_ext/_ext.py
# What is installed where a target's name is not the whole of it: MMDetection's operators stand beside an extra.
EXTRAS_demo-detection := digits,detection
EXTRAS_benchmark := timm
EXTRAS_reproduce := timm,detection
BESIDE_demo-detection := --editable ./mmcv_ext
BESIDE_reproduce := --editable ./mmcv_ext
BESIDE_dev := --editable ./mmcv_ext
# Processes that run the tests, each with whole files and one thread; in turn with 0.
WORKERS ?= 2
PYTEST := pytest -n $(WORKERS) --dist loadfile
TESTS := $(BIN)/python -m $(PYTEST)
# The versions that are installed; /dev/null takes the newest.
LOCK ?= requirements.lock
# Albumentations would ask the network for a newer version of itself.
export NO_ALBUMENTATIONS_UPDATE := 1

# The environment that `make release` tries the wheels in; it is made where it is missing.
TRIED ?= build/release

.PHONY: help demo demo-detection benchmark reproduce test tests-fast test-all coverage fuzz soak lint audit lock lowest docs release clean

help:
	@echo "make demo   trains on the embedded digits, prints the mAP table and writes a report"
	@echo "make demo-detection  the same for a detector: AP table, pictures with boxes, report"
	@echo "make benchmark  speed and memory of TResNet-M, timm's and ResNet-50, side by side; some three minutes"
	@echo "make reproduce TINY_IMAGENET=DIR VOC2007=DIR LITE0=FILE  tests the published claims in small experiments; STAGE=NAME one stage"
	@echo "make test   lint, types and the tests but for the slow ones; some eight minutes on two cores"
	@echo "make tests-fast  the same tests without lint and types"
	@echo "make test-all  lint, types and every test"
	@echo "make coverage  runs the tests but for the slow ones and prints how much of the package they reach"
	@echo "make fuzz   kills trainings and damages files, many times each; some hours on two cores"
	@echo "make soak   trains for an hour; fails if memory or open files grow"
	@echo "make lint   ruff, codespell, mypy and the layers of the package alone"
	@echo "make audit  asks PyPI for known vulnerabilities of the packages in requirements.lock"
	@echo "make docs   builds the documentation into build/site, which needs no network to be read"
	@echo "make lock   writes requirements.lock from pyproject.toml"
	@echo "make lowest  writes build/lowest.lock: the oldest versions that pyproject.toml allows; make tests-fast LOCK=build/lowest.lock"
	@echo "make release  builds wheels and source archives in dist/, checks them and tries the wheels in a new environment"
	@echo "make clean  removes the environment and what demo made"

demo: $(VENV)/digits.installed
	$(BIN)/tresnet demo

demo-detection: $(VENV)/demo-detection.installed
	$(BIN)/tresnet demo detection

benchmark: $(VENV)/benchmark.installed
	$(BIN)/python tools/benchmark.py networks --forms eager fused --peer timm_tresnet_m --out work_dirs/benchmark

# Resumes what an earlier call left. JOBS trainings share the cores; the records of the stages lie in OUT/records.
JOBS ?= 2
OUT ?= work_dirs/reproduce
reproduce: $(VENV)/reproduce.installed
	$(BIN)/tresnet reproduce $(STAGE) --out $(OUT) --jobs $(JOBS) $(if $(TINY_IMAGENET),--tiny-imagenet $(TINY_IMAGENET)) \
		$(if $(VOC2007),--voc2007 $(VOC2007)) $(if $(LITE0),--lite0 $(LITE0))

test: lint tests-fast

tests-fast: $(VENV)/beside.installed
	$(TESTS) -m "not slow"

test-all: lint $(VENV)/beside.installed
	$(TESTS)

# Commands and worker processes that the tests start are measured too.
coverage: $(VENV)/beside.installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# -rP: prints how many trainings were killed, and what they lost.
fuzz: $(VENV)/dev.installed
	TRESNET_KILLS=100 TRESNET_MUTATIONS=2000 $(BIN)/python -m pytest -m faults -rP

soak: $(VENV)/dev.installed
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py epochs --minutes 15
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py epochs --minutes 15 --task detection
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py trainings --count 300

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check tresnet_downstream mmcv_ext tools tests data benchmarks
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

# --strict: a package that the service does not know is an error, not a package without faults.
audit: $(VENV)/bin/python
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

lock: $(VENV)/bin/python
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--extra dev --extra docs --extra export pyproject.toml mmcv_ext/pyproject.toml --output-file requirements.lock

lowest: $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check --quiet uv
	mkdir -p build
	$(BIN)/uv pip compile --quiet --no-config --resolution lowest-direct --no-header --no-annotate \
		--extra dev --extra export pyproject.toml mmcv_ext/pyproject.toml --output-file build/lowest.lock

# `build` makes each wheel from its source archive. A run of one epoch tries the wheels outside of the checkout.
release: $(VENV)/bin/python
	@version=$$(sed -n 's/__version__ = "\(.*\)"/\1/p' tresnet_downstream/version.py); \
		grep -q "^## \[$$version\] - 20" CHANGELOG.md || { echo "CHANGELOG.md has no '## [$$version] - DATE'"; exit 1; }
	rm -rf dist $(TRIED)/work
	$(BIN)/pip install --disable-pip-version-check --quiet build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist mmcv_ext
	$(BIN)/twine check --strict dist/*
	test -x $(TRIED)/bin/python || $(BIN)/python -m venv $(TRIED)
	wheel=$$(ls dist/tresnet_downstream-*.whl) && $(TRIED)/bin/pip install --disable-pip-version-check --quiet \
		--constraint requirements.lock --force-reinstall --no-deps dist/*.whl && \
		$(TRIED)/bin/pip install --disable-pip-version-check --quiet --constraint requirements.lock \
		"$$wheel[digits]" dist/mmcv_on_torchvision-*.whl
	mkdir $(TRIED)/work
	tried=$$(cd $(TRIED)/bin && pwd) && cd $(TRIED)/work && \
		$$tried/python -c 'import mmcv.ops, tresnet_downstream; print("version", tresnet_downstream.__version__)' && \
		$$tried/tresnet --help > help.txt && \
		$$tried/tresnet config > configs.txt && \
		$$tried/tresnet digits --train 200 --val 50 && \
		$$tried/tresnet train digits_tresnet --out run --cfg-options max_epochs=1 && \
		$$tried/tresnet score digits_tresnet run/best.pth

# Every warning, such as a link without a page, is an error.
docs: $(VENV)/docs.installed
	$(BIN)/python docs/make_options.py
	$(BIN)/python docs/make_config_keys.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

clean:
	rm -rf $(VENV) build data/digits dist work_dirs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("needs Python 3.10 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Packages that tests combine with the network, in a folder that only those tests look into.
$(VENV)/beside.installed: tests/backbones/packages.txt $(VENV)/dev.installed
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --upgrade --target $(VENV)/beside --requirement $<
	@touch $@

# LOCK pins versions; pyproject.toml says which packages a target needs.
$(VENV)/%.installed: $(SETUP) | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint $(LOCK) --editable '.[$(or $(EXTRAS_$*),$*)]' $(BESIDE_$*)
	@# MMEngine and Albumentations each bring a build of OpenCV into one folder; the one without a display must win.
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint $(LOCK) --no-deps \
		--force-reinstall opencv-python-headless
	@touch $@
