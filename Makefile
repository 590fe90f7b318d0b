# Everything one does with this repository. `make run` and `make test` need only Python 3.11 or later, with venv
# and pip; whatever else is used is pinned by hash in requirements/ and tests/peers/, and installed below this
# folder. A target does again only what has changed since.

PYTHON ?= python3
POLICY ?= policies/dev.yaml
T ?=
JOBS ?= 2
ROUNDS ?= 200
SEED ?= 1
FUZZ_SECONDS ?= 60

BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet
# Without a pip of their own, which takes longer to install than what is wanted; and nothing is resolved again.
PEERS_INSTALL = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --python $(@D)/$*/bin/python --quiet install \
	--require-hashes --no-deps
UV_VERSION := 0.13.9
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

# The folders are among them because taking a module away must count as a change too.
SOURCES := pyproject.toml $(wildcard README.md LICENSE) \
	$(shell find mcphost sandbox -name __pycache__ -prune -o \( -type d -o -type f \) -print)

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: install dev run test check fmt lint types imports cover vm attacks bench chaos fuzz conformance peers lock clean help protocol-doc

install: .venv/.installed ## install the runtime into .venv, with pinned dependencies

run: install ## start the runtime with POLICY (policies/dev.yaml)
	@exec $(BIN)/mcphost run $(POLICY)

dev: .venv/.dev .venv/.installed ## install what tests and checks need

peers: .peers/.servers .peers/.sdk1 .peers/.node ## install the servers and clients of others that the tests use

test: dev peers ## run the tests, in JOBS (2) processes; T='-k word tests/x' chooses, in one
	$(BIN)/pytest $(if $(T),$(T),-n $(JOBS))

check: lint types imports cover ## everything that must pass: lint, format, types, imports, tests with coverage

fmt: dev ## put the code into its form
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

lint: dev ## look for mistakes and for code out of form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## check the types
	$(BIN)/mypy

imports: dev ## check who imports whom
	$(BIN)/lint-imports

cover: dev peers ## run the tests and report which lines and branches they reach
	$(BIN)/coverage erase
	$(BIN)/coverage run $(BIN)/pytest $(T)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

vm: dev ## try the sandbox in a small machine that has control groups of version 2 only
	cd tests && PYTHONPATH=.. ../$(BIN)/python -m vm

attacks: dev ## try every attack on the sandbox, as root; writes docs/attacks.md
	cd tests && PYTHONPATH=.. ../$(BIN)/python -m attacks --machine --write ../docs/attacks.md

conformance: dev peers ## judge every kind of client and server by the official suite; writes docs/conformance.md
	PYTHONPATH=.:tests $(BIN)/python -m conformance --write docs/conformance.md

bench: dev ## measure
	$(BIN)/python -m benchmarks

bench-spawn: dev ## measure starts beside subprocess, bubblewrap and the zygote; needs bubblewrap
	$(BIN)/python -m benchmarks.spawn

chaos: dev ## kill parts of a running product ROUNDS times (200) at random moments under load, as root; SEED=1
	PYTHONPATH=.:tests $(BIN)/python -m chaos --rounds $(ROUNDS) --seed $(SEED)
	PYTHONPATH=.:tests $(BIN)/python -m chaos --rounds $$(($(ROUNDS) / 4)) --seed $(SEED) --user

fuzz: .peers/.fuzz dev ## feed every reader of foreign bytes, and the running product, what nobody meant, FUZZ_SECONDS (60) each
	PYTHONPATH=.:tests .peers/fuzz/bin/python -m fuzz --seconds $(FUZZ_SECONDS) --seed $(SEED)
	PYTHONPATH=.:tests $(BIN)/python -m fuzz.live --seconds $(FUZZ_SECONDS) --seed $(SEED)

protocol-doc: dev ## write docs/protocol.md from the manifest of behaviours
	PYTHONPATH=.:tests $(BIN)/python -m behaviours > docs/protocol.md.new
	mv docs/protocol.md.new docs/protocol.md

lock: .venv/.created .peers/.servers ## choose the newest versions that fit and pin them
	$(PIP) install uv==$(UV_VERSION)
	$(COMPILE) --upgrade --extra uvloop -o requirements/runtime.txt pyproject.toml
	$(COMPILE) --upgrade --extra uvloop --group dev -c requirements/runtime.txt -o requirements/dev.txt pyproject.toml
	$(COMPILE) --upgrade -o requirements/build.txt requirements/build.in
	$(COMPILE) --upgrade -o tests/peers/servers.txt tests/peers/servers.in
	$(COMPILE) --upgrade -o tests/peers/sdk1.txt tests/peers/sdk1.in
	$(COMPILE) --upgrade -o tests/peers/fuzz.txt tests/peers/fuzz.in
	rm -f tests/peers/package-lock.json
	cd tests/peers && ../../.peers/servers/bin/npm install --package-lock-only --ignore-scripts --no-audit --no-fund

clean: ## remove everything that was made here
	rm -rf .venv .peers build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The stamps.

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.runtime: requirements/runtime.txt requirements/build.txt | .venv/.created
	$(PIP) install --require-hashes -r requirements/runtime.txt
	$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

.venv/.installed: .venv/.runtime $(SOURCES)
	$(PIP) install --no-build-isolation --no-deps --force-reinstall .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.runtime
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

# Environments of their own, for they disagree about the version of the SDK.
.peers/.servers .peers/.sdk1 .peers/.fuzz: .peers/.%: tests/peers/%.txt | .venv/.created
	$(PYTHON) -m venv --clear --without-pip .peers/$*
	$(PEERS_INSTALL) -r $<
	@touch $@

# The machines of the protocol are among what is fuzzed, and need what the runtime needs.
.peers/.fuzz: PEERS_INSTALL += -r requirements/runtime.txt

# Node itself comes from the Python index as well, so that its version is pinned and npm need not be there.
.peers/.node: .peers/.servers tests/peers/package.json tests/peers/package-lock.json
	mkdir -p .peers/node
	cp tests/peers/package.json tests/peers/package-lock.json tests/peers/.npmrc .peers/node/
	cd .peers/node && ../servers/bin/npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@
