# Everything that a developer types. `make` alone lists it. Set-up happens by itself, into .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := 0.13.8
# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 ...` overrules.
PYTHON ?= $(shell for p in python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$p && break; done)
# One thread a process: parallelism is MPI's, and two cores are soon oversubscribed.
export OMP_NUM_THREADS ?= 1
# Tests are compiled once, not by each process that runs some of them, whatever the surroundings say.
export PYTHONDONTWRITEBYTECODE :=
# Whose round-off `make test-processors` takes, with how many threads, and which tests.
PROCESSORS ?= SkylakeX Haswell Zen Prescott
THREADS ?= 1 2
NUMERICAL ?= tests/fem tests/surrogate tests/coupling
SELECT ?= not slow
# The tests share out the cores. Those for several ranks run under mpiexec; those of other libraries belong to the benchmarks.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
SERIAL := $(PARALLEL) --ignore tests/mpi --ignore tests/rivals

.PHONY: help setup demo docs dist test-demo test test-processors test-cluster test-faults check lint bench lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv (the other targets do it when needed)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "sobofem needs Python 3.12 or newer: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || \
		{ echo "sobofem needs a C compiler for its finite-element kernels: install gcc"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## samples, surrogate, certified optimum and pictures of it all, in demo-output
	$(BIN)/python examples/demo.py --out demo-output

test-demo: demo ## the demo, and whether it keeps its promises
	SOBOFEM_DEMO=demo-output $(BIN)/python -m pytest tests/test_demo.py

# A third rank is for what two can't tell: a rank between others, uneven groups, a rank without a boundary.
test: lint ## the suite without what is long: serially, and under mpiexec on 2 and 3 ranks
	$(BIN)/python -m pytest $(SERIAL) -m "not bench"
	$(BIN)/mpiexec -n 2 $(BIN)/python -m pytest -p no:cacheprovider tests/mpi
	$(BIN)/mpiexec -n 3 $(BIN)/python -m pytest -p no:cacheprovider -m "not slow and not two_ranks" tests/mpi

# OPENBLAS_CORETYPE: NumPy, SciPy and PETSc; the others: torch and its MKL. AVX-512 is not to be had everywhere.
test-processors: $(READY) ## numerical tests in the round-off of other processors, with 1 and 2 threads, on other seeds
	@set -e; shift=0; for core in $(PROCESSORS); do for threads in $(THREADS); do \
		shift=$$((shift + 1)); \
		case $$core in \
			SkylakeX) grep -q -w avx512vl /proc/cpuinfo || { echo "$$core: this processor has no AVX-512"; continue; }; \
				isa=avx512 cbwr=AVX512;; \
			Prescott) isa=default cbwr=COMPATIBLE;; \
			*) isa=avx2 cbwr=AVX2;; \
		esac; \
		echo "$$core, $$threads threads, seeds shifted by $$shift"; \
		OPENBLAS_CORETYPE=$$core ATEN_CPU_CAPABILITY=$$isa MKL_CBWR=$$cbwr OMP_NUM_THREADS=$$threads \
			$(BIN)/python -m pytest $(PARALLEL) --quiet -m "$(SELECT)" --shift-seeds $$shift $(NUMERICAL); \
	done; done

test-cluster: $(READY) ## job scripts on a Slurm of one node, set up for the purpose, in four minutes
	@for program in slurmctld slurmd munged sbatch; do \
		PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || \
		{ echo "there is no $$program: apt-get install slurm-wlm munge"; exit 1; }; done
	SOBOFEM_CLUSTER=1 $(BIN)/python -m pytest tests/cluster

test-faults: $(READY) ## a hundred kills at random moments, in ten minutes
	SOBOFEM_KILLS=100 $(BIN)/python -m pytest tests/coupling/test_faults.py -k kills

docs: $(READY) ## the site, in build/site: whatever leads nowhere fails; then its tests
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/site
	SOBOFEM_SITE=build/site $(BIN)/python -m pytest --quiet tests/test_site.py

# Without FEniCSx, PyTorch and the rest where an extra doesn't ask for them: each is installed into an environment of its own.
dist: $(READY) ## wheel and source archive in dist, checked, and installed with each extra
	rm -rf dist
	$(BIN)/uv build --quiet
	$(BIN)/uv tool run --quiet twine check --strict dist/*
	SOBOFEM_DIST=dist $(BIN)/python -m pytest --quiet tests/test_dist.py

check: $(READY) ## the quick tests, without those for several ranks and of other libraries
	$(BIN)/python -m pytest $(SERIAL) -m "not slow"

lint: $(READY) ## format, style, types, and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: $(READY) ## tests of other libraries and over many designs, then the figures in docs/benchmarks.md
	$(BIN)/python -m pytest $(PARALLEL) tests/rivals
	$(BIN)/python -m pytest $(SERIAL) -m bench
	$(BIN)/python -m benchmarks

lock: $(READY) ## resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.12 --extra dev --extra docs --extra oracle --no-header --no-annotate \
		--output-file requirements.lock pyproject.toml

clean: ## remove the environment and whatever was built
	rm -rf $(VENV) build dist demo-output .pytest_cache .mypy_cache .ruff_cache
