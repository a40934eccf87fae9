# Everything happens in .venv, with the versions of constraints.txt. What is up to date is not done again.
PYTHON ?= python3
VENV := .venv
IN_VENV := VIRTUAL_ENV="$(CURDIR)/$(VENV)" PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

.PHONY: help demo test horovod check docs notebooks bench clean

help:
	@echo "make demo    train the quickstart here, as 2 nodes x 2 processes"
	@echo "make test    run all tests"
	@echo "make horovod build Horovod for the tests that train with it; CI does that by itself"
	@echo "make check   lint and type-check"
	@echo "make docs    build the site of the documents"
	@echo "make notebooks runs those of the samples, and writes down what they show"
	@echo "make bench   measure, and write docs/bench.md"
	@echo "make clean   remove .venv and caches"

demo: $(VENV)/.installed
	@$(IN_VENV) azml-dist run samples/quickstart/job.yml
	@echo "\`azml-dist\` is in $(VENV): . $(VENV)/bin/activate"

test: $(VENV)/.installed-groups tests/node_modules/.installed
	@$(IN_VENV) pytest

horovod: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR) python tests/horovod_build.py

check: $(VENV)/.installed-groups
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy

docs: $(VENV)/.installed-groups
	@$(IN_VENV) python docs/generate.py
	@$(IN_VENV) python -m sphinx --quiet --fail-on-warning --nitpicky --conf-dir docs . build/docs
	@echo "open build/docs/index.html"

notebooks: $(VENV)/.installed-groups tests/node_modules/.installed
	@$(IN_VENV) python tests/notebooks.py

bench: $(VENV)/.installed-groups
	@$(IN_VENV) python -m bench docs/bench.md

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-groups: $(VENV)/.installed
	@echo "installing what the tests and checks need"
	@$(PIP) --group test --group check
	@touch $@

# Azurite, which keeps the blobs of the emulated service. Without npm its tests are skipped, and fail in CI.
tests/node_modules/.installed: tests/package-lock.json
	@if command -v npm >/dev/null; then echo "installing Azurite" && npm ci --prefix tests --no-audit --no-fund --loglevel=error \
		&& touch $@; else echo "npm is not installed: tests of submission will be skipped"; fi

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing azml-dist, torch and scikit-learn"
	@$(PIP) --build-constraint constraints.txt --editable '.[torch,mlflow]' --group quickstart
	@touch $@

# The pip that comes with Python 3.11 cannot resolve azure-ai-ml's requirements, so pip itself comes first.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 or later; name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) cannot make a virtual environment; install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@touch $@
