# Everything happens in .venv, with the versions in constraints.txt. Finished steps are not repeated.
PYTHON ?= python3
VENV := .venv
IN_VENV := VIRTUAL_ENV="$(CURDIR)/$(VENV)" PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# At a terminal, pip shows its progress; otherwise only errors.
QUIET := $(shell test -t 1 || echo --quiet)
PIP := $(VENV)/bin/python -m pip $(QUIET) --disable-pip-version-check install --constraint constraints.txt

.PHONY: help demo demo-azure test quick test-lowest horovod kills hostile score score-scripts crash mutants check format docs notebooks bench compare contract clean

help:
	@echo "make demo    train the quickstart on this machine, as 2 nodes x 2 processes"
	@echo "make demo-azure submit a job to a workspace on this machine, let it fail, find out why, fix it: no account needed"
	@echo "make test    run all tests, in WORKERS=3 processes"
	@echo "make quick   run the tests that start no process and need no framework: about a minute"
	@echo "make test-lowest test requests and submission with the lowest versions that pyproject.toml allows"
	@echo "make kills   kill processes of runs at random: COUNT=1000 SEED=1"
	@echo "make horovod build Horovod for the tests that train with it (CI builds it itself)"
	@echo "make hostile try 2,000 bad inputs, or others: \`make hostile COUNT=9999 SEED=7\`"
	@echo "make score-scripts FOLDERS=...   show what is found in the training scripts in some folders"
	@echo "make score   score the verdict on failed runs, the findings about scripts and the watch for hangs, and write all into docs/"
	@echo "make crash   make one rank fail COUNT=50 times under each launcher, on a busy machine"
	@echo "make mutants try whether the tests notice mistakes: MUTANTS=30 of each pure part, or MUTANTS=all; SEED=1"
	@echo "make check   lint, type-check, and measure how long files and functions are"
	@echo "make format  format the code, and fix what the linter can fix"
	@echo "make docs    build the documentation site"
	@echo "make notebooks run the sample notebooks, and save their output"
	@echo "make bench   measure, and write docs/bench.md"
	@echo "make compare FOLDER=...   which job files azure-ai-ml accepts and we do not, and the reverse"
	@echo "make contract FOLDER=...  submit Microsoft's samples, in a clone of azureml-examples, to the emulator"
	@echo "make clean   remove .venv and caches"

demo: $(VENV)/.installed
	@$(IN_VENV) azml-dist run samples/quickstart/job.yml
	@echo "\`azml-dist\` is in $(VENV): . $(VENV)/bin/activate"

# The workspace is in a folder of its own, and gone at the end.
CPU_CLUSTER := {"cpu-cluster": {"vm_size": "STANDARD_DS3_V2", "max_nodes": 4}}
demo-azure: $(VENV)/.installed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && export AZML_DIST_ROOT="$$folder/runs" && $(IN_VENV) \
		azml-dist emulator --folder "$$folder/state" --set 'clusters=$(CPU_CLUSTER)' -- bash samples/demo_azure.sh

# A file's tests stay in one process. Many of them wait, so there is a process more than a small machine has cores.
WORKERS ?= 3
test: $(VENV)/.installed-groups tests/node_modules/.installed
	@$(IN_VENV) pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# tests/quick.py finds them.
quick: $(VENV)/.installed-groups
	@$(IN_VENV) pytest -q -m quick

# A separate environment, rebuilt when either file changes. Packages without a lowest version get the usual one.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/test_request.py tests/test_from_command.py tests/test_wire.py

test-lowest: $(LOWEST)/.installed tests/node_modules/.installed
	@VIRTUAL_ENV="$(CURDIR)/$(LOWEST)" PATH="$(CURDIR)/$(LOWEST)/bin:$$PATH" python -m pytest -p no:cacheprovider $(LOWEST_TESTS)

$(LOWEST)/.installed: $(VENV)/.installed-groups pyproject.toml constraints.txt tests/lowest.py
	@echo "installing the lowest versions that pyproject.toml allows"
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(IN_VENV) python tests/lowest.py > $(LOWEST)/constraints.txt
	@$(VENV)/bin/python -m pip --python $(LOWEST)/bin/python --quiet --disable-pip-version-check install \
		--constraint $(LOWEST)/constraints.txt --editable . pytest trustme
	@touch $@

horovod: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR) python tests/horovod_build.py

SEED ?= 1
kills: COUNT ?= 1000
kills: $(VENV)/.installed-groups
	@$(IN_VENV) python tests/kills.py $(COUNT) $(SEED)

hostile: COUNT ?= 2000
hostile: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m hostile --count $(COUNT) --seed $(SEED)

score: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m verdict
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m scriptscore
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m hangscore

score-scripts: FOLDERS ?=
score-scripts: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m scriptscore.public $(FOLDERS)

crash: COUNT ?= 50
crash: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python -m verdict.crash $(COUNT)

mutants: MUTANTS ?= 30
mutants: $(VENV)/.installed-mutants
	@$(IN_VENV) nice -n 19 python tests/mutants.py $(MUTANTS) $(SEED)

$(VENV)/.installed-mutants: $(VENV)/.installed-groups
	@$(PIP) --group mutants
	@touch $@

check: $(VENV)/.installed-groups
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy
	@$(IN_VENV) python tests/shape.py

format: $(VENV)/.installed-groups
	@$(IN_VENV) ruff check --fix
	@$(IN_VENV) ruff format

docs: $(VENV)/.installed-groups
	@$(IN_VENV) python docs/generate.py
	@$(IN_VENV) python -m sphinx --quiet --fail-on-warning --nitpicky --conf-dir docs . build/docs
	@echo "open build/docs/index.html"

notebooks: $(VENV)/.installed-groups tests/node_modules/.installed
	@$(IN_VENV) python tests/notebooks.py

bench: $(VENV)/.installed-groups
	@$(IN_VENV) python -m bench docs/bench.md

compare: $(VENV)/.installed-groups
	@$(IN_VENV) python tests/scripts/compare.py $(FOLDER)

contract: $(VENV)/.installed-groups
	@$(IN_VENV) PYTHONPATH=$(CURDIR)/tests python tests/contract.py $(FOLDER)

clean:
	rm -rf $(VENV) $(LOWEST) build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-groups: $(VENV)/.installed
	@echo "installing what the tests and checks need"
	@$(PIP) --group test --group check
	@touch $@

# Azurite, which stores the blobs of the emulated service. Without npm, tests that need it are skipped, or fail in CI.
tests/node_modules/.installed: tests/package-lock.json
	@if command -v npm >/dev/null; then echo "installing Azurite" && npm ci --prefix tests --no-audit --no-fund --loglevel=error \
		&& touch $@; else echo "npm is not installed: tests with Azurite will be skipped"; fi

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing azml-dist with torch, scikit-learn and Azure's SDK: a download of about 250 MB if your index"
	@echo "has a CPU build of torch, or several gigabytes with CUDA; CONTRIBUTING.md says how to choose"
	@$(PIP) --build-constraint constraints.txt --editable '.[torch,mlflow,emulator]' --group quickstart
	@touch $@

# The pip that comes with Python 3.11 cannot resolve azure-ai-ml's requirements, so pip itself comes first.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 or later; name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) cannot create a virtual environment; install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@touch $@
