# make quickstart   install, and take the embedded model through the whole pipeline
# make test         install, and run the tests
# make test-engines install, and compile every kind of block with TensorRT-RTX
# make lint         install, and run ruff and mypy

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# The types of TensorRT, for mypy alone: the package asks for tensorrt itself, whose libraries are not
# on PyPI, and has five lines that are no Python.
TYPES  := $(VENV)/typings

.PHONY: quickstart test test-all test-engines lint clean

quickstart: $(VENV)/.run
	$(BIN)/resdeploy run recipes/quickstart.toml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2

test-engines: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 -m slow tests/engines

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

clean:
	rm -rf $(VENV) runs
