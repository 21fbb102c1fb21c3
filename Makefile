# make quickstart   install, and take the embedded model through the whole pipeline
# make test         install, and run the tests
# make test-engines install, and compile every kind of block with TensorRT-RTX
# make test-browser install, and look at the report in headless Chromium (Debian's chromium)
# make screenshots  install, and take the pictures of the report that the README shows
# make lint         install, and run ruff and mypy

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# The types of TensorRT, for mypy alone: the package asks for tensorrt itself, whose libraries are not
# on PyPI, and has five lines that are no Python.
TYPES  := $(VENV)/typings

.PHONY: quickstart test test-all test-engines test-browser screenshots lint clean

quickstart: $(VENV)/.run
	$(BIN)/resdeploy run recipes/quickstart.toml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow" --ignore tests/browser

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --ignore tests/browser

test-engines: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 -m slow tests/engines

test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest -q tests/browser

screenshots: $(VENV)/.browser
	$(BIN)/python -m tests.browser.screenshots docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A stamp per set of extras; another pin or dependency installs again.
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cpu,report]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cpu,openvino,report,rtx,test,dev]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps --upgrade --target $(TYPES) tensorrt-stubs
	sed -i -e 's/\bin: list/in_: list/' -e 's/axis: int) -> IScaleLayer/axis: int = 0) -> IScaleLayer/' \
	  $(TYPES)/tensorrt_bindings/tensorrt.pyi
	touch $@ $(VENV)/.run

$(VENV)/.browser: $(VENV)/.dev
	test -x /usr/bin/chromium || { echo "Debian's package chromium is needed: apt-get install chromium"; exit 2; }
	$(PIP) install --quiet --constraint constraints.txt --editable '.[browser]'
	touch $@

clean:
	rm -rf $(VENV) runs
