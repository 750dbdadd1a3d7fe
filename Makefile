# The commands of this repository. Nothing but Python 3.11+ and make is needed; everything is installed into $(VENV).

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
RUNS   ?= runs
SECONDS ?= 3600
SEED   ?= 1

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := $(BIN)/python -m pip --disable-pip-version-check
TEST  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)
# torchvision is loaded without its compiled operators, so any torch will do.
OPEN_CLIP := open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.29.1 ftfy==6.3.1 wcwidth==0.9.4

.DEFAULT_GOAL := help
.PHONY: help install quickstart format lint types test test-all wheel wheel-test matrix open-clip-test soak coverage docs audit clean

help: ## Show these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## Make .venv with the pinned versions and vlprompt in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("vlprompt needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 install" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: install ## Install, then learn the first prompts on the embedded images (minutes, no GPU, no download)
	$(BIN)/vlprompt quickstart --out $(RUNS)/quickstart

format: install ## Rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install ## Format and lint, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## Type check
	$(BIN)/mypy

test: lint types ## Format, lint, types and the quick tests
	$(TEST) -m "not slow"

test-all: test ## The same, and then the slow tests, one after another
	OMP_NUM_THREADS=$(JOBS) $(BIN)/python -m pytest -m slow

wheel: install ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

wheel-test: wheel ## Install the built wheel in an empty environment and learn a prompt without this repository
	tools/wheel_test.sh "$(PYTHON)" dist/*.whl constraints.txt

open-clip-test: install ## Every model that open_clip lists, against open_clip itself (minutes)
	$(PIP) install --quiet --upgrade --no-deps --target build/open_clip $(OPEN_CLIP)
	PYTHONPATH=build/open_clip OMP_NUM_THREADS=$(JOBS) $(BIN)/python -m pytest tests/towers/test_openclip_library.py

soak: install ## Damage files, kill processes and fill the disk for SECONDS; writes docs/reliability.md
	-$(BIN)/python -m pip install --quiet --only-binary :all: 'atheris>=3.0' && \
		OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.guided --seconds $$(($(SECONDS) / 4)) --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --seconds $(SECONDS) --seed $(SEED)

coverage: install ## Which branches the quick tests take, by file; writes docs/reliability.md
	$(BIN)/python -m pip install --quiet 'coverage>=7.10'
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --ignore-errors
	$(BIN)/python -m tests.soak.coverage
	$(BIN)/python -m tests.soak --page

docs: install ## Build the documentation site into site/ (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: install ## Ask a vulnerability service about the pinned versions (needs the network)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip -r constraints.txt

matrix: ## The quick tests under every Python at hand, with the pinned versions
	$(PYTHON) tools/matrix.py

clean: ## Remove what the commands above made, but no runs
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
