# make demo       train and evaluate MDG on generated scenes (minutes on two CPU cores)
# make test       the fast tests, in two processes; TEST_PROCESSES=8 on a larger machine
# make coverage   the same, and what they cover: 92 % of the lines at least
# make test-slow  the slow ones too, and those that need the extras
# make extras     what the extras of setup.py need: other runtimes, the web page, trackers, radiometric files, the site
# make docs       README and docs/ as a site in build/site, every link checked
# make lint       style
# make types      types of the whole package
# make bench      measures the network and writes docs/benchmarks.md (six minutes on two CPU cores)
# make chaos      kills, fills, damages and takes away, and looks whether runs survive; the table of docs/reliability.md
# make fuzz       ten minutes of mutated files for every reader; FUZZ_SECONDS=60 for fewer
# make audit      asks for known faults of the locked packages
# make lock       writes requirements.lock anew from requirements.txt
# make gpu        with a CUDA GPU and MFNet: tests of the CUDA backends, measurements, eight minutes of training
# make natten     compiles NATTEN's own kernels for the GPU at hand: needs nvcc, takes about half an hour
# Each prepares .venv first, once. PYTHON=python3.12 picks the interpreter (3.10 to 3.13); TORCH=cpu, or TORCH=cu126 for
# an older driver, another build of PyTorch than the default one (tools/doctor.py says which fits).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := $(VENV)/.extras
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What of the locked set belongs to one build of PyTorch.
CUDA_BUILD := ^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==
TOOLS := .venv-tools
ATHERIS := atheris==3.0.0
FUZZ_SECONDS ?= 600
TEST_PROCESSES ?= 2
# Side by side, each process with one thread; what needs more asks for them.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15
DEMO_DIR = exp/demo/$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-slow coverage natten extras docs lint types bench gpu chaos fuzz setup audit lock clean-venv
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): requirements.lock requirements-natten.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "make: $(PYTHON) must be Python 3.10 to 3.13; name another with PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# The locked set is whole, so nothing is resolved: pip's resolver takes the newest `coverage[toml]` for a locked
	@# `coverage==...` and then misses its digest.
ifdef TORCH
	awk '/^[^ ]/ {left = /$(CUDA_BUILD)/} !left' requirements.lock > $(VENV)/requirements.lock
	$(PIP) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH) $$(grep -E '^torch(vision)?==' requirements.txt)
	$(PIP) --require-hashes --no-deps -r $(VENV)/requirements.lock
else
	$(PIP) --require-hashes --no-deps -r requirements.lock
endif
	$(PIP) --no-build-isolation --no-deps -e .
	@# Optional, its Python part alone: it would compile for half an hour where it finds nvcc and a GPU. `make natten` does.
	CUDA_VISIBLE_DEVICES= NATTEN_CUDA_ARCH= $(PIP) --require-hashes --no-build-isolation --no-deps -r requirements-natten.lock || \
	  echo "natten could not be installed; neighbourhood attention runs on its other backends"
	$(BIN)/python tools/doctor.py --compile
	$(BIN)/python tools/doctor.py --race || echo "backends could not be measured; they are chosen by what is known of processors"
	@touch $@

demo: $(READY)
	@run=$(DEMO_DIR); PYTHON=$(BIN)/python bash tools/train_ddp.sh configs/demo.yaml --run-dir $$run && \
	  $(BIN)/python tools/val_mm.py --checkpoint $$run/checkpoints/best.pt --split test

test: $(READY)
	$(PYTEST)

test-slow: $(EXTRAS)
	$(PYTEST) -m "slow or not slow"

# Counting lines doubles the time of what is Python.
coverage: $(EXTRAS)
	$(PYTEST) --cov --cov-report term:skip-covered

natten: $(READY)
	$(PIP) --require-hashes --no-build-isolation --no-deps --no-cache-dir --force-reinstall --verbose -r requirements-natten.lock

extras: $(EXTRAS)

$(EXTRAS): $(READY) requirements-extras.lock
	$(PIP) --require-hashes --no-deps -r requirements-extras.lock
	@touch $@

docs: $(EXTRAS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; with the search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python scripts/run_benchmarks.py

gpu: $(READY)
	$(BIN)/python scripts/check_gpu.py

chaos: $(READY)
	$(BIN)/python scripts/chaos.py --kills 300

fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP) --no-deps $(ATHERIS) || \
	  echo "atheris could not be installed; inputs are mutated blindly instead"
	$(BIN)/python scripts/fuzz.py --seconds $(FUZZ_SECONDS)

# Both run in an environment of their own, which is removed again.
audit:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(TOOLS)/bin/pip-audit --disable-pip --require-hashes -r requirements.lock; code=$$?; rm -rf $(TOOLS); exit $$code

lock:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(TOOLS)/bin/python scripts/lock_requirements.py; code=$$?; rm -rf $(TOOLS); exit $$code

clean-venv:
	rm -rf $(VENV) $(TOOLS)
