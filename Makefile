# Every target does its own set-up: it needs Python >= 3.10 with venv, a C++ compiler and, once, the package index.
# Everything else (CMake, ninja, the tools) is installed into .venv.

PYTHON ?= python3
VENV   ?= .venv
WHEELS ?= dist

# One test run, or one lint run, can be narrowed down: make test ARGS="tests/loop -k greedy"
ARGS ?=

bin    := $(VENV)/bin
stamp  := $(VENV)/.stamps
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two builds in one directory would spoil each other.
one_at_a_time := $(if $(shell command -v flock),flock build/.lock)

own_cpp = $(shell find csrc vendor/llama.cpp/overlay -name '*.cpp' -o -name '*.c' -o -name '*.h')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Recipes share .venv and the build directories.
.NOTPARALLEL:
.PHONY: help demo test test-long lint lint-python lint-types lint-cpp lint-shell lint-stubs lint-vendor format stubs build wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## generate from the bundled model, plain and speculative, side by side
	$(bin)/python -m nextn demo $(ARGS)

# Threads that wait sleep: when another process has a core, spinning ones make small models up to 100 times slower.
test: export OMP_WAIT_POLICY ?= passive
test: build wheel $(stamp)/test ## build, then run the tests (ARGS goes to pytest)
	$(bin)/python -m pytest -m "not long" $(ARGS)

test-long: export OMP_WAIT_POLICY ?= passive
test-long: build $(stamp)/test ## the tests that take minutes: more draws, more texts
	$(bin)/python -m pytest -m long $(ARGS)

lint: lint-python lint-types lint-cpp lint-shell lint-stubs lint-vendor ## ruff, mypy, clang-format, shellcheck, stubs, vendor

lint-python: $(stamp)/lint
	$(bin)/ruff check
	$(bin)/ruff format --check

lint-types: build $(stamp)/test $(stamp)/lint
	$(bin)/mypy

lint-cpp: $(stamp)/lint
	$(bin)/clang-format --dry-run --Werror $(own_cpp)

lint-shell: $(stamp)/lint
	$(bin)/shellcheck scripts/*.sh .ci/run

lint-stubs: build $(stamp)/lint
	$(bin)/python scripts/stubs.py

lint-vendor: $(stamp)/venv
	$(bin)/python scripts/vendor.py check

format: $(stamp)/lint ## format Python and C++ in place
	$(bin)/ruff check --fix
	$(bin)/ruff format
	$(bin)/clang-format -i $(own_cpp)

stubs: build $(stamp)/lint ## write python/nextn/_core.pyi from the built module
	$(bin)/python scripts/stubs.py --write

build: $(stamp)/build ## compile and install into .venv, editable
	@mkdir -p build
	$(one_at_a_time) $(bin)/python -m pip install --quiet --no-build-isolation --check-build-dependencies --editable .

wheel: $(stamp)/build $(stamp)/wheel ## self-contained wheel for this platform, in dist/
	$(bin)/python scripts/build_wheel.py --out $(WHEELS)

clean: ## remove what was built, but not .venv
	rm -rf build $(WHEELS)

# pip's --group is newer than the pip that comes with Python.
$(stamp)/venv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "nextn needs Python 3.10 or newer: make PYTHON=...")'
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1'
	mkdir -p $(stamp) && touch $@

$(stamp)/%: $(stamp)/venv pyproject.toml
	$(bin)/python -m pip install --quiet --group $*
	touch $@
