# make demo       train and evaluate MDG on generated scenes (minutes on two CPU cores)
# make test       the fast tests
# make test-slow  the slow ones too
# make lint       style
# make bench      measures the network and writes docs/benchmarks.md (six minutes on two CPU cores)
# make gpu        with a CUDA GPU and MFNet: tests of the CUDA backends, measurements, eight minutes of training
# Each prepares .venv first, once. PYTHON=python3.12 picks the interpreter (3.10 to 3.13).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR = exp/demo/$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-slow lint bench gpu setup clean-venv
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "make: $(PYTHON) must be Python 3.10 to 3.13; name another with PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@# Optional: natten builds against the torch just installed. Without it the plain PyTorch backend serves.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps natten==0.21.7 || \
	  echo "natten could not be installed; neighbourhood attention runs on its plain PyTorch backend"
	@touch $@

demo: $(READY)
	@run=$(DEMO_DIR); PYTHON=$(BIN)/python bash tools/train_ddp.sh configs/demo.yaml --run-dir $$run && \
	  $(BIN)/python tools/val_mm.py --checkpoint $$run/checkpoints/best.pt --split test

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	$(BIN)/python scripts/run_benchmarks.py

gpu: $(READY)
	$(BIN)/python scripts/check_gpu.py

clean-venv:
	rm -rf $(VENV)
