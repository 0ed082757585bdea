# Everything runs from .venv, which each target makes by itself. `make PYTHON=/path/to/python3.12 test` chooses another.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?= $(shell sh scripts/find_python.sh)
JOBS ?= 2
CLOUDS ?= aws gcp azure

.PHONY: help demo test test-deploy check faults soak sbom audit-deps bench bench-quality bench-cold package plan deploy promote lock clean

help:
	@echo "make demo           install, then train, serve, retrain and roll back three models on this machine"
	@echo "make test           the test suite, with branch coverage of core"
	@echo "make test-deploy    apply AWS's stack to two emulators, use it, destroy it (needs terraform)"
	@echo "make check          ruff, mypy, bandit, import contracts, changelog and version"
	@echo "make faults         every suite that tries to break the promises, at full size; one table (hours)"
	@echo "make soak           a busy server on a bad disk for POLYSKY_SOAK_S=60 seconds; one table"
	@echo "make sbom           bills of materials of all deployables, CycloneDX, in build/sbom"
	@echo "make audit-deps     known vulnerabilities in what is pinned (needs network)"
	@echo "make bench          speed against scikit-learn, as ratios"
	@echo "make bench-quality  holdout scores beside plain scikit-learn pipelines"
	@echo "make bench-cold     cold start of the packaged functions on the clouds' own runtimes"
	@echo "make package        the zip files that the clouds' functions are deployed as, in dist (CLOUDS=aws: some only)"
	@echo "make plan           sizes, limits, rights and monthly costs of those packages"
	@echo "make deploy         CLOUD=aws|gcp|azure: its stack by terraform (needs credentials and terraform)"
	@echo "make promote        POLYSKY_MODEL=name POLYSKY_VERSION=v-…: production of POLYSKY_STORE"
	@echo "make lock           pin requirements again (needs network)"
	@echo "make clean          remove what the other targets made"

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "make: no python3 >= 3.11 with venv found; set PYTHON=" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.requirements: requirements.txt $(VENV)/.python
	$(PIP) install --quiet --no-deps --requirement requirements.txt
	@touch $@

$(VENV)/.runtimes: infra/requirements/runtimes.txt $(VENV)/.python
	$(PIP) install --quiet --no-deps --ignore-requires-python --requirement infra/requirements/runtimes.txt
	@touch $@

# the Blob storage emulator is a node program; without npm its tests are skipped, and fail where CI is set
tests/emulators/node_modules/.done: tests/emulators/package-lock.json
	@command -v npm >/dev/null || { test -z "$$CI" && echo "make: no npm, so no Blob storage emulator" >&2; }
	! command -v npm >/dev/null || npm ci --silent --prefix tests/emulators
	! command -v npm >/dev/null || touch $@

$(VENV)/.polysky: pyproject.toml $(VENV)/.requirements
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

# programs that would disagree with our libraries: each set in an environment of its own
TOOLS = audit lint ministack moto policy
$(TOOLS:%=build/%/.done): build/%/.done: infra/requirements/%.txt $(VENV)/.python
	"$(BIN)/python" -m venv build/$*
	build/$*/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps \
		--requirement infra/requirements/$*.txt
	@touch $@

demo: $(VENV)/.polysky
	$(BIN)/polysky demo

test: $(VENV)/.polysky $(VENV)/.runtimes tests/emulators/node_modules/.done build/lint/.done build/policy/.done
	$(BIN)/python -m pytest --quiet --no-cov tests/faults/test_seeds.py
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --ignore tests/deploy

test-deploy: $(VENV)/.polysky build/ministack/.done build/moto/.done
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/deploy

check: $(VENV)/.polysky
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --severity-level medium --recursive core handlers_aws handlers_azure handlers_gcp handlers_onprem scripts
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_release

faults: $(VENV)/.polysky $(VENV)/.runtimes tests/emulators/node_modules/.done
	$(BIN)/python -m scripts.scoreboard -n $(JOBS) --dist loadfile

soak: $(VENV)/.polysky
	$(BIN)/python -m scripts.soak.run

sbom: $(VENV)/.polysky
	$(BIN)/python -m scripts.sbom build/sbom

audit-deps: build/audit/.done
	build/audit/bin/python -m scripts.audit_deps

bench: $(VENV)/.polysky
	$(BIN)/python -m scripts.bench.speed

bench-quality: $(VENV)/.polysky
	$(BIN)/python -m scripts.bench.quality

bench-cold: $(VENV)/.polysky $(VENV)/.runtimes tests/emulators/node_modules/.done
	$(BIN)/python -m scripts.bench.cold

package: $(VENV)/.polysky
	$(BIN)/polysky package $(CLOUDS) --out dist

plan: $(VENV)/.polysky
	$(BIN)/polysky plan $(CLOUDS) --packages dist

# by the shell's variables, not make's: what somebody typed into a form is not run
deploy: $(VENV)/.polysky
	@test -n "$$CLOUD" || { echo "make: say CLOUD=aws, gcp or azure" >&2; exit 1; }
	@test -z "$$CI" -o -n "$$DEPLOY_FLAGS" || \
		{ echo "make: say in DEPLOY_FLAGS where the state is kept, --backend KIND …: this machine forgets it" >&2; exit 1; }
	set -f; $(BIN)/polysky deploy "$$CLOUD" --packages dist $$DEPLOY_FLAGS

# after a deployment that went well
promote: $(VENV)/.polysky
	@test -n "$$POLYSKY_MODEL" || echo "make: no POLYSKY_MODEL, so nothing is promoted" >&2
	test -z "$$POLYSKY_MODEL" || $(BIN)/polysky models promote "$$POLYSKY_MODEL" "$$POLYSKY_VERSION"

lock: $(VENV)/.python
	$(PIP) install --quiet uv
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/lock.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find core handlers_* scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
