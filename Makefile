# Two commands: `make demo` does the whole job and writes a report; `make test` runs every check.
# Both build the environment they need in .venv, once, from the versions pinned in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/uv/bin/uv
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test

help:
	@echo "make demo     train, distil and report on Playroom (about 8 minutes on 2 cores)"
	@echo "make test     lint, types, import contracts and tests"
	@echo "make install  only create $(VENV)"

# Some dependencies need Python 3.11. Where $(PYTHON) is 3.10, uv finds or fetches a newer one.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else \
		f"{sys.executable} is Python {sys.version.split()[0]}, 3.10 or later is needed: make PYTHON=...")'
	test -x $(UV) || $(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --constraint constraints.txt uv
	test -x $(BIN)/python || $(UV) venv --allow-existing $(VENV) --python "$$($(PYTHON) -c \
		'import sys; print(sys.executable if sys.version_info >= (3, 11) else ">=3.11")')"
	$(UV) pip install --python $(BIN)/python --constraint constraints.txt \
		--build-constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python experiments/playroom.py --preset demo

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto
