# Every recipe starts from a bare clone: the environments below are made when they are missing.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PY := $(VENV)/bin/python
BENCH_VENV := $(VENV)-bench
AUDIT_VENV := $(VENV)-audit
MINUTES ?= 10
SETUP := $(PYTHON) tools/setup_env.py
SETUP_FILES := pyproject.toml $(filter-out tools/measure_house.py,$(wildcard tools/*.py)) $(wildcard pipeline/*/*.c)

DEMO_RUN := --learner protonets --backbone conv4 --image-size 42 --way 5 --shot 5 --query 5 --h 10 \
	--tasks 800 --tasks-per-step 4 --rotate --validate-every 200 --validation-tasks 100

.PHONY: help demo test check fix bench faults fuzz soak sanitize bill audit clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS); LITE_SHARDS_PILLOW=simd|stock, TORCH_SPEC=...: CONTRIBUTING.md"

demo: $(VENV)/.train  ## draw a dataset, build its shards, train on them, print the accuracy, draw an episode
	$(PY) -m pipeline.build --dataset demo --out shards/demo --sizes 42 84 224 --encode 42=raw
	$(PY) -m pipeline.verify shards/demo
	$(PY) -m pipeline.show shards/demo --html shards/demo.html
	$(PY) -m pipeline.show shards/demo --episode 0 --way 5 --shot 5 --query 5 --h 10 \
		--png shards/demo-episode.png
	rm -rf runs/demo
	$(PY) train.py --shards shards/demo --out runs/demo $(DEMO_RUN)

test: $(VENV)/.dev  ## the whole test suite (REAL_DATA=folder adds the tests on real data)
	$(PY) -m pytest -n $(WORKERS)

check: $(VENV)/.dev  ## format, lint and types; changes nothing
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

fix: $(VENV)/.dev  ## what the tools can repair by themselves
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: $(BENCH_VENV)/.bench  ## builder and loader against their ceilings and peers, in an environment of their own
	$(BENCH_VENV)/bin/python -m benchmarks.build
	$(BENCH_VENV)/bin/python -m benchmarks.loader --rounds 3
	$(BENCH_VENV)/bin/python -m benchmarks.loader_growth
	$(BENCH_VENV)/bin/python -m benchmarks.loader_soak

faults: $(VENV)/.dev  ## the fault matrix F1 to F22 in its long form: kills, failing disks, damage, hostile input
	$(PY) -m tests.faults

fuzz: $(VENV)/.fuzz  ## every parser of foreign bytes for MINUTES each
	$(PY) -m tests.fuzz --minutes $(MINUTES)

soak: $(VENV)/.dev  ## 30 minutes of building, reading, training, evaluating and serving, killed and resumed at random
	$(PY) -m tests.soak --minutes 30

sanitize: $(VENV)/.dev  ## both native.c under address and undefined-behaviour sanitizers, 10,000 mutated images
	$(PY) -m tests.sanitize --images 10000

bill: $(VENV)/.dev $(AUDIT_VENV)/.audit  ## a bill of materials of the environment (CycloneDX), in build/
	mkdir -p build
	$(AUDIT_VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/bill-of-materials.json $(PY)

audit: bill  ## known vulnerabilities of what is installed; asks the package index
	$(AUDIT_VENV)/bin/pip-audit --skip-editable --progress-spinner off \
		--path $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

clean:  ## remove what make made: environments, caches, the demo's shards
	rm -rf $(VENV) $(BENCH_VENV) $(AUDIT_VENV) build shards/demo shards/demo.html shards/demo-episode.png runs/demo *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find pipeline -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.train: $(SETUP_FILES)
	$(SETUP) --venv $(VENV) --extra train
	@touch $@

$(VENV)/.dev: $(SETUP_FILES)
	$(SETUP) --venv $(VENV) --extra dev
	@touch $(VENV)/.train $@

$(VENV)/.fuzz: $(SETUP_FILES)
	$(SETUP) --venv $(VENV) --extra fuzz
	@touch $(VENV)/.train $(VENV)/.dev $@

$(AUDIT_VENV)/.audit:
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	@touch $@

$(BENCH_VENV)/.bench: $(SETUP_FILES)
	$(SETUP) --venv $(BENCH_VENV) --extra bench
	@touch $@
