# Everything README and CI call. `make help` lists it.
#
# setup writes to .venv (Python tools), .karat (downloads, ONNX Runtime's
# library) and the built files of models/*, all ignored by git; delete them to
# start over. A step runs again only when something it is made from is newer.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

# The Python that the virtual environment is made from: 3.11 or newer, with pip.
PYTHON ?= python3
# What `make gpu-check` runs on.
PROVIDER ?= cuda
# Where `make serve` listens.
LISTEN ?= 127.0.0.1:8080

VENV_PYTHON := .venv/bin/python
VENV := .venv/complete
ONNXRUNTIME := .karat/onnxruntime/lib/libonnxruntime.so
ONNXRUNTIME_CUDA := .karat/onnxruntime-cuda/lib/libonnxruntime.so
RELEASE := target/release/karat
GPU_BUNDLE := .karat/gpu-check/bundle
HALF := .karat/gpu-check/relevance-fp16/model.onnx
RELEVANCE := models/relevance/model.onnx models/relevance/tokenizer.json
HARMLESS := models/harmless/model.onnx models/harmless/tokenizer.json
GRAMMAR := models/grammar/model.onnx models/grammar/tokenizer.json
SMOLLM2 := critic likelihood smol-reward
SMOLLM2_GRAPHS := $(SMOLLM2:%=models/decoders/%/model.onnx)
TOOLS := models/tools
PYTHON_CLIENT := clients/python
PYTHON_CLIENT_BIN := .karat/python-client/venv/bin
PYTHON_CLIENT_VENV := .karat/python-client/venv/complete
REAL_CLIENTS_PYTHON := .karat/clients/venv/bin/python
REAL_CLIENTS_VENV := .karat/clients/venv/complete
BENCH_PYTHON := .karat/loadtest/venv/bin/python
BENCH_VENV := .karat/loadtest/venv/complete

# The wheels of ONNX Runtime report usage over the network unless told not to.
export ORT_DISABLE_TELEMETRY := 1
export KARAT_ONNXRUNTIME ?= $(abspath $(ONNXRUNTIME))
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: gpu-check gpu-check-bundle help setup setup-cuda demo serve test test-clients lint generate bench bench-decoder bench-generation micro-bench setup-decoders train-harmless train-smol-reward FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(ONNXRUNTIME) $(VENV) $(RELEVANCE) $(HARMLESS) $(GRAMMAR) ## Fetch ONNX Runtime and build the demo models

setup-cuda: $(ONNXRUNTIME_CUDA) ## Fetch ONNX Runtime for NVIDIA GPUs (250 MB) and show what is missing
	cargo build --release
	$(RELEASE) doctor --onnxruntime $(ONNXRUNTIME_CUDA)

setup-decoders: $(ONNXRUNTIME) $(SMOLLM2_GRAPHS) ## Build the models on SmolLM2 (models/decoders; 540 MB)

demo: setup $(RELEASE) ## Build everything, score real candidates and print the ranking
	$(VENV_PYTHON) -m models.tools.demo --server $(RELEASE) --models models

serve: setup $(RELEASE) ## Run the server in the foreground (LISTEN=127.0.0.1:8080)
	exec $(RELEASE) serve --models models --listen $(LISTEN)

test: setup $(PYTHON_CLIENT_VENV) ## Run the tests of server and Python client, and the comparison with the reference implementation
	cargo test --workspace
	$(VENV_PYTHON) -m unittest tests.exporter.test_export tests.study.test_study
	$(PYTHON_CLIENT_BIN)/python -m pytest -q $(PYTHON_CLIENT)
	cargo build --release
	$(VENV_PYTHON) -m tests.parity.parity --server $(RELEASE)
	$(VENV_PYTHON) -m unittest --quiet tests.gpu.test_check tests.gpu.test_half_precision
	$(PYTHON_CLIENT_BIN)/python -m pytest -q tests/clients/python

test-clients: setup $(REAL_CLIENTS_VENV) $(RELEASE) ## Fetch the real clients of other servers, run them against karat and print a table
	$(REAL_CLIENTS_PYTHON) -m pytest -q tests/clients/real

bench: setup $(BENCH_VENV) ## Measure karat beside raw ONNX Runtime and other servers (QUICK=1, MODELS=, PEERS=infinity)
	cargo build --release --bin karat --example loadtest
	$(BENCH_PYTHON) -m loadtest.bench $(if $(QUICK),--quick) $(if $(MODELS),--models $(MODELS)) $(if $(PEERS),--peers $(PEERS))

bench-decoder: setup ## Measure what sharing a prompt among its candidates saves (QUICK=1; PEERS=vllm: beside vLLM instead)
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.random_llama --output .karat/loadtest/llama
ifeq ($(PEERS),vllm)
	$(VENV_PYTHON) -m loadtest.vllm
else
	$(VENV_PYTHON) -m loadtest.decoder --classic llama-classic --five llama-five $(if $(QUICK),--quick)
endif

bench-generation: setup setup-decoders ## Measure how fast critiques are written, beside llama.cpp, which is compiled (ALONE=1: without it)
	cargo build --release --bin karat
	$(VENV_PYTHON) -m loadtest.generation $(if $(ALONE),--alone)

micro-bench: setup ## Measure the parts that cost time beside the forward pass
	cargo bench --bench planner --bench request --bench scoring

lint: $(PYTHON_CLIENT_VENV) ## Check formatting, lints and that generated files are up to date
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	cargo run --quiet -- generate --check
	$(PYTHON) -m models.study.report --check
	cd $(PYTHON_CLIENT) && $(abspath $(PYTHON_CLIENT_BIN))/ruff format --no-cache --check . ../../tests/clients
	cd $(PYTHON_CLIENT) && $(abspath $(PYTHON_CLIENT_BIN))/ruff check --no-cache . ../../tests/clients
	cd $(PYTHON_CLIENT) && $(abspath $(PYTHON_CLIENT_BIN))/mypy --cache-dir $(abspath .karat/python-client/mypy) src tests
	cd $(PYTHON_CLIENT) && $(abspath $(PYTHON_CLIENT_BIN))/mypy --cache-dir $(abspath .karat/python-client/mypy) ../../tests/clients/python

generate: ## Write the OpenAPI document and the reference pages from the code
	cargo run --quiet -- generate

.PHONY: study
study: setup $(BENCH_VENV) $(RELEASE) ## Show on real answers what stops over-optimisation (DATA=best-of-n-alpacaeval.jsonl.gz)
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see docs/evidence.md" >&2; exit 2; }
	$(VENV_PYTHON) -m models.study.run --data $(DATA) --server $(RELEASE)
	$(BENCH_PYTHON) -m models.study.plot
	$(PYTHON) -m models.study.report

train-harmless: $(VENV) models/harmless/tokenizer.json ## Train the harmless heads anew (DATA=preferences.jsonl.gz [HHH=hhh.jsonl])
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see models/harmless/README.md" >&2; exit 2; }
	$(VENV_PYTHON) -m models.tools.train_harmless --data $(DATA)
	$(VENV_PYTHON) -m models.tools.harmless --folder models/harmless
	$(VENV_PYTHON) -m models.tools.evaluate_harmless --data $(DATA) $(if $(HHH),--hhh $(HHH))

train-smol-reward: $(VENV) ## Train the smol-reward heads anew (DATA=preferences.jsonl.gz)
	@test -n "$(DATA)" || { echo "DATA=FILE is missing: see models/decoders/smol-reward/README.md" >&2; exit 2; }
	$(VENV_PYTHON) -m models.tools.train_smol_reward --data $(DATA)

$(ONNXRUNTIME): $(TOOLS)/onnxruntime_library.py $(TOOLS)/packages.py
	$(PYTHON) -m models.tools.onnxruntime_library --output $@

gpu-check-bundle: setup $(ONNXRUNTIME_CUDA) $(HALF) ## Pack what checks a GPU machine without a network, in files below 60 MiB
	cargo build --release --bin karat --example loadtest
	$(VENV_PYTHON) -m tests.gpu.bundle --onnxruntime $(dir $(ONNXRUNTIME_CUDA)) --half $(dir $(HALF)) --output $(GPU_BUNDLE)

gpu-check: ## Check scores and speed on this machine's GPU (PROVIDER=cuda|tensorrt|cpu, QUICK=1)
	test -f $(GPU_BUNDLE)/pieces.json || $(MAKE) gpu-check-bundle
	$(PYTHON) $(GPU_BUNDLE)/check.py --work .karat/gpu-check/run --provider $(PROVIDER) $(if $(QUICK),--quick)

$(ONNXRUNTIME_CUDA): $(TOOLS)/onnxruntime_library.py $(TOOLS)/packages.py
	$(PYTHON) -m models.tools.onnxruntime_library --cuda --output $@

$(VENV): $(TOOLS)/virtual_environment.py $(TOOLS)/requirements.txt
	$(PYTHON) -m models.tools.virtual_environment --requirements $(TOOLS)/requirements.txt --output .venv
	touch $@

$(BENCH_VENV): $(TOOLS)/virtual_environment.py loadtest/requirements.txt
	$(PYTHON) -m models.tools.virtual_environment --requirements loadtest/requirements.txt --output $(@D)
	touch $@

$(PYTHON_CLIENT_VENV): $(TOOLS)/virtual_environment.py $(PYTHON_CLIENT)/requirements-dev.txt
	$(PYTHON) -m models.tools.virtual_environment --requirements $(PYTHON_CLIENT)/requirements-dev.txt --output $(@D)
	touch $@

$(REAL_CLIENTS_VENV): $(TOOLS)/virtual_environment.py tests/clients/real/requirements.txt
	$(PYTHON) -m models.tools.virtual_environment --requirements tests/clients/real/requirements.txt --output $(@D)
	touch $@

$(RELEVANCE) &: $(TOOLS)/relevance.py $(TOOLS)/onnx_file.py $(TOOLS)/tokenizer_file.py $(VENV)
	$(VENV_PYTHON) -m models.tools.relevance --folder models/relevance

$(HALF): $(TOOLS)/half_precision.py $(VENV) $(RELEVANCE)
	$(VENV_PYTHON) -m models.tools.half_precision --model models/relevance --to fp16 --output $(@D)

$(HARMLESS) &: $(TOOLS)/harmless.py $(TOOLS)/minilm.py $(TOOLS)/onnx_file.py \
		$(TOOLS)/tokenizer_file.py models/harmless/heads.safetensors $(VENV)
	$(VENV_PYTHON) -m models.tools.harmless --folder models/harmless

$(GRAMMAR) &: $(TOOLS)/grammar.py $(TOOLS)/onnx_file.py $(TOOLS)/tokenizer_file.py \
		models/grammar/model.toml $(VENV)
	$(VENV_PYTHON) -m models.tools.grammar --folder models/grammar

# The three link one weight file, which the first writes.
$(SMOLLM2_GRAPHS) &: $(TOOLS)/smollm2.py $(wildcard $(TOOLS)/decoder/*.py) \
		models/decoders/smol-reward/heads.safetensors $(VENV)
	$(VENV_PYTHON) -m models.tools.smollm2 $(SMOLLM2:%=models/decoders/%)

# Cargo knows best whether anything has changed.
$(RELEASE): FORCE
	cargo build --release

FORCE:
