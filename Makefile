# Everything runs from .venv, which `make setup` creates; nothing else is installed or changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CYCLEGAN ?= smiling64
WORKERS ?= 2
SOURCES := client training export benchmarks cli tests

.PHONY: help setup lock ops demo test test-slow soak lint format docs bench tables comparison screenshot clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything (about 8 GB: torch comes with CUDA; see TORCH_INDEX)

# One resolution of all extras: installing some of them later could lift numpy over what Triton takes.
# `make LOCKED=1 setup` takes the versions of requirements.lock (Python 3.11 on Linux, x86-64). `make TORCH_INDEX=URL setup` takes torch from another package index, such as PyTorch's own for CPUs.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else f"Triton from pip needs Python 3.10 to 3.12, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install --quiet $(if $(LOCKED),--constraint requirements.lock) --editable '.[all,bench-peers,dev,docs,serve]'
	@touch $@

lock: $(STAMP) ## Write requirements.lock: the versions of .venv, with which the tests ran
	$(BIN)/pip freeze --exclude-editable > $(VENV)/constraints.txt
	$(BIN)/uv pip compile --quiet --all-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--constraint $(VENV)/constraints.txt pyproject.toml --output-file requirements.lock

ops: $(STAMP) ## Build the C++ interpolation operator
	$(BIN)/python -m homomorph_export.ops.build

demo: $(STAMP) ## Export the shipped model, serve it on Triton, morph two pictures into out/
	$(BIN)/python -m homomorph_cli.demo docs/source.png docs/target.png --out out

# More workers than two gain little: one of them runs all tests that start servers (see tests/conftest.py).
test: lint ops ## Lint, then run the tests that need no GPU and no long time, in two processes (WORKERS=N for others)
	$(BIN)/pytest -m 'not slow and not gpu' --numprocesses $(WORKERS) --dist loadfile

test-slow: $(STAMP) ops ## Run the slow tests
	$(BIN)/pytest -m 'slow and not gpu'

soak: $(STAMP) ops ## Send thousands of good and malformed requests, and kill servers and commands
	$(BIN)/pytest -m 'soak and not gpu' -s

lint: $(STAMP) ## Check format, lint, types and which package imports which
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the sources
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: $(STAMP) ## Build the documentation into out/docs; a broken link is an error
	$(BIN)/python -m sphinx --fail-on-warning --quiet docs out/docs

bench: $(STAMP) ops ## Measure the operator (results in out/bench)
	$(BIN)/homomorph bench kernel --out out/bench

tables: $(STAMP) ## Write the figures of README.md and docs/ again from benchmarks/results
	$(BIN)/python -m homomorph_bench.page_tables . benchmarks/results

comparison: $(STAMP) ## Measure all systems, and write docs/comparison.md again (CYCLEGAN=RUN for another one)
	@test -d data/held_out || $(BIN)/homomorph render data/held_out --count 6000 --size 64 --seed 1
	$(BIN)/homomorph evaluate avatars64 $(CYCLEGAN) --data data/held_out --out out/comparison --page docs/comparison.md
	cp out/comparison/metrics.json benchmarks/results/evaluation/metrics.json
	$(BIN)/python -m homomorph_bench.page_tables . benchmarks/results

screenshot: $(STAMP) ## Take the pictures of the page in docs/ again (needs Debian's chromium)
	$(BIN)/python tests/ui/screenshot.py docs

clean: ## Remove what was built, exported and measured; keep .venv
	rm -rf out build
	git clean -fdXq triton_repo
