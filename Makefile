# The build from a fresh machine with Rust, a C and C++ compiler, make and Python 3. `make help`.
#
# One target folder and one profile for all of it: Wasmtime takes minutes to build. Cargo and CMake
# know what is out of date, so most targets here just ask them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# The makes that CMake calls, and cargo, are told how many jobs to run, and nothing else.
unexport MAKEFLAGS
CMAKE_BUILD := env -u MAKELEVEL cmake --build

ifeq ($(origin PYTHON),undefined)
PYTHON := $(or $(shell command -v python3),python3)
endif
CARGO ?= $(or $(shell command -v cargo),$(wildcard $(HOME)/.cargo/bin/cargo),cargo)
CARGO_FLAGS ?= --locked
JOBS ?= $(shell nproc)
# Where `make install` goes, and `make run` builds against.
PREFIX ?= build/prefix
# More arguments for the program of `make run`.
RUN_FLAGS ?=
export CARGO_TARGET_DIR := $(CURDIR)/target
export PYTHON

# ---- cmake: the system's if it is 3.20 or later, or a pinned one in the build tree ----

CMAKE_VERSION := 3.31.6
USABLE_CMAKE := ^cmake version (3\.[2-9][0-9]|[4-9]|[1-9][0-9])
ifeq ($(shell cmake --version 2>/dev/null | grep -E '$(USABLE_CMAKE)'),)
PACKAGES := cmake==$(CMAKE_VERSION)
TOOLS := build/tools/have-cmake-$(CMAKE_VERSION)
PIP := $(TOOLS)
# For all that is called here: Wasmtime's build script calls cmake too.
export PATH := $(CURDIR)/build/tools/bin:$(PATH)
else
PACKAGES :=
TOOLS :=
PIP := build/tools/have-pip
endif
FETCH := build/tools/bin/python-with-pip tools/fetch.py

.PHONY: all build configure install run inputs test test-asan test-real test-loom soak lint bench header \
  clean distclean help

all: build ## the release library (the default)

build: build/release/configured
	@$(CMAKE_BUILD) build/release --target bop-cargo

build/tools/have-%:
	@tools/get-tools.sh build/tools $(PACKAGES)
	@touch $@

# CMake itself sees to what changes later.
build/%/configured: | $(TOOLS)
	@cmake -S . -B build/$* -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_INSTALL_MESSAGE=LAZY \
	  -DBUILD_TESTING=ON -DBOP_ASAN=$(if $(filter asan,$*),ON,OFF) \
	  -DBOP_CARGO='$(CARGO)' -DBOP_CARGO_FLAGS='$(CARGO_FLAGS)'
	@touch $@

configure: build/release/configured ## the C build, without building anything

install: build ## into PREFIX (build/prefix)
	@cmake --install build/release --prefix '$(abspath $(PREFIX))'

# ---- the main job ----

run: install | $(PIP) ## real WASI programs as fibers, then 10,000 fibers in one instance
	@$(FETCH) quickjs resvg zig
	@cmake -S examples -B build/examples -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_PREFIX_PATH='$(abspath $(PREFIX))' >build/examples.log \
	  || { cat build/examples.log; exit 1; }
	@$(CMAKE_BUILD) build/examples --parallel $(JOBS)
	@build/examples/bop-run $(RUN_FLAGS)
	@echo; build/examples/fibers build/examples/fibers-guest.wasm

inputs: | $(PIP) ## the programs, and the compiler for guests, that `make test` needs
	@$(FETCH)

# ---- tests: both halves run, and the summary speaks for both ----

CARGO_TEST := '$(CARGO)' test --release $(CARGO_FLAGS) --no-fail-fast
LOGS := build/logs
# Builds and runs the C and C++ tests of a build tree, one after another: each uses all cores.
ctest = { $(CMAKE_BUILD) $(1) --parallel $(JOBS) && \
	  ctest --test-dir $(1) --output-on-failure --no-tests=error $(2); } 2>&1

# The protocols' models: a package of its own, with its own folder under target.
LOOM := '$(CARGO)' test --release $(CARGO_FLAGS) --manifest-path tests/loom/Cargo.toml \
	--target-dir target/loom --no-fail-fast

test: build/release/configured inputs ## cargo's tests, the models under loom, and the C and C++ tests
	@mkdir -p $(LOGS); cargo=0; loom=0; ctest=0; \
	$(CARGO_TEST) -- --show-output 2>&1 | tee $(LOGS)/cargo.log || cargo=$$?; \
	$(LOOM) 2>&1 | tee $(LOGS)/loom.log || loom=$$?; \
	$(call ctest,build/release,-LE real-suites) | tee $(LOGS)/ctest.log || ctest=$$?; \
	$(PYTHON) tools/test-summary.py cargo $$cargo $(LOGS)/cargo.log cargo $$loom $(LOGS)/loom.log \
	  ctest $$ctest $(LOGS)/ctest.log

test-loom: ## the models under loom alone
	@$(LOOM)

test-asan: build/asan/configured ## the C and C++ tests under AddressSanitizer
	@mkdir -p $(LOGS); ctest=0; \
	$(call ctest,build/asan) | tee $(LOGS)/asan.log || ctest=$$?; \
	$(PYTHON) tools/test-summary.py ctest $$ctest $(LOGS)/asan.log

test-real: build/release/configured | $(PIP) ## the real programs, with 94 MB of benchmark suites
	@$(FETCH) --real
	@mkdir -p $(LOGS); ctest=0; \
	$(call ctest,build/release,-L real) | tee $(LOGS)/real.log || ctest=$$?; \
	$(PYTHON) tools/test-summary.py ctest $$ctest $(LOGS)/real.log

soak: build/release/configured ## five minutes of everything at once: nothing may be left behind
	@$(CMAKE_BUILD) build/release --target test-soak --parallel $(JOBS)
	@BOP_SOAK=$${BOP_SOAK:-300} build/release/c-tests/bin/soak

lint: | $(TOOLS) ## what clippy finds is an error
	@'$(CARGO)' clippy --release --all-targets $(CARGO_FLAGS) -- -D warnings

bench: | $(TOOLS) ## the benchmarks, each beside its rival
	@'$(CARGO)' bench --profile release $(CARGO_FLAGS) --bench switch -- $(BENCH_FLAGS)

header: | $(TOOLS) ## writes include/bop.h again, from src/capi
	@BOP_WRITE_HEADER=1 '$(CARGO)' test --release $(CARGO_FLAGS) --test header

# ---- the rest ----

clean: ## what this made, but for cargo's target folder, tools and inputs
	rm -rf build/release build/asan build/examples build/examples.log build/prefix build/run $(LOGS)

distclean: ## everything, Wasmtime's minutes of build too
	rm -rf build target

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' \
	  | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
