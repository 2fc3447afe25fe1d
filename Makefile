# The two commands to begin with are `make demo` and `make test`. Nothing but Python 3.11+ and make is needed.
#
#   make demo    install into .venv and watch the whole path on a made-up world
#   make test    run the test suite                   (ARGS="-k name" passes options to pytest)
#   make lint    ruff (style, format, docstrings), mypy, import-linter
#   make bench   measure and record                   (ONLY=name runs one row, ARGS="--force" passes options)
#   make bench-gpu  the same of the trunk on a GPU
#   make docs    build the documentation site into site/
#   make clean   remove what the commands above made
#
# PYTHON=path chooses the interpreter, VENV=folder the environment, PIP_ARGS="--index-url ..." where packages come from.

VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
ONLY ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python)
RECENT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
# constraints.txt pins every package, so that the same versions are installed everywhere. It does not say which build: for Linux the public
# index serves torch with CUDA, some gigabytes; PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" prefers the CPU build
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) --editable
RUN := $(VENV)/bin/python

.PHONY: demo test lint format bench bench-gpu docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	$(VENV)/bin/unisono demo $(ARGS)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 $(ARGS)

# every check runs, also after one has failed
lint: $(VENV)/.lint
	@failed=0; \
	for check in "ruff check ." "ruff format --check ." mypy lint-imports; do \
	  echo "== $$check" >&2; $(VENV)/bin/$$check || failed=1; \
	done; exit $$failed

format: $(VENV)/.lint
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV)/.bench
	$(RUN) -m benchmarks $(ONLY) $(ARGS)

bench-gpu: $(VENV)/.bench
	@$(RUN) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'bench-gpu: this machine, or this build of torch, has no CUDA')"
	$(RUN) -m benchmarks trunk_gpu $(ARGS)

docs: $(VENV)/.docs
	$(RUN) docs/build.py

clean:
	rm -rf $(VENV) build site src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# a pip that is cut off leaves no stamp, so the next call takes it up again
$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing unisono into $(VENV) (the first time this takes some minutes) ..." >&2
	@$(INSTALL) .
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.bench: $(VENV)/.%: $(VENV)/.base
	@echo "Installing what 'make $*' needs ..." >&2
	@$(INSTALL) ".[$*]"
	@touch $@

$(VENV)/.made:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c "$(RECENT)" >/dev/null 2>&1; then \
	    "$$python" -m venv $(VENV) && touch $@ && exit 0; exit 1; \
	  fi; \
	done; \
	for python in $(CANDIDATES); do \
	  if command -v "$$python" >/dev/null 2>&1; then echo "found: $$python, $$("$$python" --version 2>&1)" >&2; fi; \
	done; \
	echo "Unisono needs Python 3.11 or newer with its venv and ensurepip modules." >&2; \
	echo "Install one (on Debian and Ubuntu: python3 python3-venv), or name it: make $(or $(firstword $(MAKECMDGOALS)),demo) PYTHON=/path/to/python3.11" >&2; \
	exit 1
