# Each command does its own set-up in .venv: `make demo`, `make test`, `make bench`.
PYTHON ?= python3
VENV := .venv
# A process a core, at most four: each holds a GB. A file's tests stay together, with its fixtures;
# tests/conftest.py has the longest files first.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick test-slow bench lint clean

# torch comes first and by its pinned version: a resolver left alone takes a CUDA build (GBs).
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.done
	$(VENV)/bin/xlt-bench demo

# Side by side: in a new clone mypy takes a minute of one core.
test: $(VENV)/.done
	$(MAKE) --jobs=2 lint quick

quick: $(VENV)/.done
	$(VENV)/bin/pytest -m "not slow" --durations=10 $(PARALLEL)

test-slow: $(VENV)/.done
	$(VENV)/bin/pytest -m slow

# MODEL=FOLDER runs the scripts that take a model on it. Writes docs/performance.md.
bench: $(VENV)/.done
	$(VENV)/bin/python performance/bench.py $(if $(MODEL),--model $(MODEL))

lint: $(VENV)/.done
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)
