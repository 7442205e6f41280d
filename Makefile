# Everything works from a bare clone with Python 3.11 or later, make and a package index. `make help` lists what there is.
#
#   PYTHON   the interpreter to use            make test PYTHON=python3.13 VENV=.venv-3.13
#   VENV     where what is needed is installed
#   ARGS     options for what is run           make serve ARGS="--port 0"     make test ARGS="-k ttl"
#   RUNS     how many conversations `make stateful` plays
#   LEVERET_COMPILE=0   `make serve` runs plain Python also where a C compiler is present

VENV ?= .venv
ARGS ?=
LEVERET_COMPILE ?= 1
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c "$(NEW_ENOUGH)" 2>/dev/null && echo $$p && exit; done; echo python3)

BIN := $(VENV)/bin
SERVE := $(VENV)/serve
SOURCES := $(shell find broker protocol storage -name __pycache__ -prune -o \( -name '*.py' -o -type d \) -print)

# Everything is installed in the version that constraints.txt names. The tools that build the package are installed
# first and used as they are (no build isolation), so this holds for them too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve test test-compiled stateful guard crash interop bench check format docs wheel clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(SERVE)/.installed-$(LEVERET_COMPILE) ## run the broker; compiled where a C compiler is present
	@exec $(SERVE)/bin/leveret serve $(ARGS)

test: $(VENV)/.dev ## run the tests
	$(BIN)/python -m pytest $(ARGS)

COMPILE = LEVERET_COMPILE=1 $(BIN)/python -m pip install -q --no-deps --no-build-isolation --upgrade --target build/compiled .

test-compiled: $(VENV)/.dev ## compile the hot modules and run the tests against them
	$(COMPILE)
	PYTHONPATH=build/compiled $(BIN)/python -m leveret --version | grep compiled
	PYTHONPATH=build/compiled $(BIN)/python -m pytest $(ARGS)

RUNS ?= 20000
stateful: $(VENV)/.dev ## play RUNS random conversations against the reference of what a broker does
	STATEFUL_RUNS=$(RUNS) $(BIN)/python -m pytest tests/stateful -o faulthandler_timeout=0 $(ARGS)

guard: $(VENV)/.dev ## count the instructions of the hot loops, and fail if one takes 20 % more than before
	$(COMPILE)
	$(BIN)/python -m tests.guard $(ARGS)

crash: $(VENV)/.dev ## kill the broker under load, twenty times, and look for what is lost
	$(BIN)/python -m pytest tests/crash -m crash -o faulthandler_timeout=1200 $(ARGS)

interop: $(VENV)/.interop ## run real clients against Leveret and RabbitMQ, and compare
	$(BIN)/python interop-tests/run.py $(ARGS)

bench: $(VENV)/.dev $(SERVE)/.installed-$(LEVERET_COMPILE) ## measure Leveret and RabbitMQ; writes docs/reference/benchmarks.md
	$(BIN)/python -m docs.benchmarks.run --leveret="$(abspath $(SERVE))/bin/leveret serve" $(ARGS)

check: $(VENV)/.dev ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## write the pages of docs/reference that are made from the code
	$(BIN)/python docs/generate.py

wheel: $(VENV)/.dev ## build a wheel into dist/; a compiled one with LEVERET_COMPILE=1 given
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean: ## remove all that make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What is installed. Each stamp is made last, so that an interrupted installation is done again.

define venv
	@$(PYTHON) -c "$(NEW_ENOUGH)" 2>/dev/null || { \
	  found=$$($(PYTHON) -c "import platform; print('Python ' + platform.python_version())" 2>/dev/null); \
	  echo "Leveret needs Python 3.11 or later; $(PYTHON) is $${found:-not to be found}."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; } >&2
	@$(PYTHON) -m venv $(1)
endef

$(VENV)/.dev: pyproject.toml constraints.txt hatch_build.py
	$(call venv,$(VENV))
	@echo "Installing the development tools into $(VENV)"
	@$(BIN)/python -m pip install -q pip hatchling
	@$(BIN)/python -m pip install -q --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/.interop: $(VENV)/.dev
	@echo "Installing the clients into $(VENV)"
	@$(BIN)/python -m pip install -q --no-build-isolation -e '.[dev,interop]'
	@touch $@

# The broker that `make serve` runs has an environment of its own, where a wheel is installed: only a wheel is compiled.
$(SERVE)/.tools: pyproject.toml constraints.txt
	$(call venv,$(SERVE))
	@echo "Installing what Leveret needs into $(SERVE)"
	@$(SERVE)/bin/python -m pip install -q pip hatchling mypy setuptools
	@LEVERET_COMPILE=0 $(SERVE)/bin/python -m pip install -q --no-build-isolation .
	@touch $@

INSTALL := $(SERVE)/bin/python -m pip install --no-deps --no-build-isolation --force-reinstall .
$(SERVE)/.installed-$(LEVERET_COMPILE): $(SERVE)/.tools hatch_build.py $(SOURCES)
	@mkdir -p build && rm -f $(SERVE)/.installed-*
	@if [ "$(LEVERET_COMPILE)" = 1 ]; then \
	  echo "Building Leveret; compiling takes about a minute the first time"; \
	  LEVERET_COMPILE=1 $(INSTALL) > build/compile.log 2>&1 || { \
	    why=$$(sed -n 's/.*RuntimeError: cannot compile: //p' build/compile.log | head -n 1); \
	    echo "Leveret runs as plain Python, because $${why:-compiling failed (see build/compile.log)}"; \
	    LEVERET_COMPILE=0 $(INSTALL) -q; }; \
	else LEVERET_COMPILE=0 $(INSTALL) -q; fi
	@touch $@
