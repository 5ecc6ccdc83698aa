# make train, make test: both install what they need into .venv first, on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
BIN = .venv/bin
WORKDIR ?= runs/embedded

.PHONY: train test test-all lint recipe-check docs docs-serve clean

# Modules are compiled when they are first imported: all of them, at installation, would take a minute more.
unexport PYTHONDONTWRITEBYTECODE
define install
test -d .venv || $(PYTHON) -m venv .venv
$(BIN)/pip install -q --no-compile --disable-pip-version-check $(^:%=-r %)
touch $@
endef

.venv/run: requirements.txt requirements-serve.txt
	$(install)

.venv/dev: requirements.txt requirements-serve.txt requirements-dev.txt
	$(install)

# torch, the reference of the parity tests: where CI=true, or by `make .venv/parity`
.venv/parity: requirements.txt requirements-serve.txt requirements-dev.txt requirements-parity.txt
	$(install)

train: .venv/run
	$(BIN)/python train.py --config=configs/stage3.py --workdir=$(WORKDIR)
	$(BIN)/python eval.py --config=configs/stage3.py --workdir=$(WORKDIR)

TEST_DEPS = $(if $(filter true,$(CI)),.venv/parity,.venv/dev)

test: $(TEST_DEPS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-all: $(TEST_DEPS)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

# Every :0.9b config for two updates, on stand-ins of its data and backbones: the recipe begins.
recipe-check: .venv/run
	$(BIN)/python -m benchmarks.recipe

# The documentation as a site, in .cache/site; every warning is an error.
docs: .venv/dev
	$(BIN)/python -m mkdocs build --strict

docs-serve: .venv/dev
	$(BIN)/python -m mkdocs serve

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache
