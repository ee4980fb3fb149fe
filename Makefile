# Every target sets up what it needs. PYTHON picks the interpreter the environment is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
EVAL := $(VENV)/.installed-eval
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow test-faults bench lint install clean

demo: install
	$(BIN)/curate demo

test: $(EVAL)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m "not slow and not faults" $(PYTEST_FLAGS)

test-slow: install
	$(BIN)/pytest -q -m slow $(PYTEST_FLAGS)

test-faults: install
	$(BIN)/pytest -q -s -m faults $(PYTEST_FLAGS)

bench: $(EVAL)
	$(BIN)/python tests/benchmarks/bench_score.py $(BENCH_FLAGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quantization,demo,report,dev]"
	touch $(READY)

# lm-eval, for evaluate.tasks: its tests and a benchmark need it, the demo does not.
$(EVAL): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[eval]"
	touch $(EVAL)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
