# Every target sets up what it needs: `make demo` and `make test` work on a fresh clone.
# Stamp files in .venv/ record what has been done, so that nothing is done twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUF_VERSION := 1.75.0
BUF := $(VENV)/node/node_modules/.bin/buf

# A debug build replaces the release build in place and back, so each has its own stamp.
FLAVOUR := $(or $(patsubst 1,debug,$(filter-out 0,$(RISKD_DEBUG))),release)
BUILT := $(VENV)/.stamp-$(FLAVOUR)
READY := $(BUILT) $(VENV)/.stamp-install
# A plain interpreter loads a module with a sanitizer only after the sanitizer's own run time; without
# it, it ends at the import. What is found is in build/fault.PID: pytest keeps what a process says.
SANITIZED-debug = LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS="detect_leaks=0 log_path='$(CURDIR)/build/fault'" \
	UBSAN_OPTIONS="print_stacktrace=1 log_path='$(CURDIR)/build/fault'"
# ThreadSanitizer wants addresses that are not random. CPython and grpcio are not built with it: what
# they touch themselves is not looked at, what their locks order is. Nothing is suppressed. What it
# finds is in build/race.PID, and the status is 66 then.
SANITIZED-thread = LD_PRELOAD="$$(cc -print-file-name=libtsan.so)" \
	TSAN_OPTIONS="log_path=build/race ignore_noninstrumented_modules=1 die_after_fork=0" \
	setarch -R
SANITIZED = $(SANITIZED-$(FLAVOUR))
export PYTHON RISKD_DEBUG

PROTOS := $(wildcard proto/riskd/v1/*.proto)
CORE := $(wildcard ext/riskd/core/*.pyx ext/riskd/core/*.pxd ext/riskd/core/*.h)
CLIENT := $(wildcard clients/python/pyproject.toml)
CHECKED := $(wildcard riskd benchmarks tests)
TESTS := $(wildcard tests clients/python/tests)
THREADED := $(wildcard tests/service/test_listener*.py) \
	tests/service/test_doors.py tests/service/test_durability.py \
	tests/service/test_identities.py tests/service/test_credentials.py \
	$(wildcard tests/service/test_metric*.py) tests/unit/test_histogram.py \
	tests/unit/test_journal.py tests/unit/test_durable_engine.py

.DELETE_ON_ERROR:
.PHONY: help demo test test-debug test-threads test-crash test-differential test-parity simulate lint format conformance bench bench-listener interop h2spec soak fuzz proto wheel wheel-check constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## run the service with sample data
	$(SANITIZED) $(BIN)/riskd demo

test: $(READY) ## run all tests
	$(SANITIZED) $(BIN)/python -m pytest -q $(TESTS)

# test_recovery.py makes an engine for each bit, which takes far longer with ASan: one bit of eight has
# to do. A process that a test starts may die unseen, but its report is found.
test-debug: ## run all tests with every check of our own, ASan and UBSan
	rm -f build/fault.*
	RISKD_RECOVERY_BITS=$${RISKD_RECOVERY_BITS:-1} $(MAKE) test RISKD_DEBUG=1; \
		status=$$?; ! cat build/fault.* 2>/dev/null && exit $$status

test-threads: ## run the tests of what threads share, with ThreadSanitizer
	$(MAKE) test RISKD_DEBUG=thread TESTS="$(THREADED)"

test-crash: $(READY) ## kill the service under load, CRASHES times (200) for each durability
	$(SANITIZED) $(BIN)/python -m tests.crash --crashes $(or $(CRASHES),200)

test-differential: $(READY) ## compare engine and reference over COMMANDS (100000) of each of SEEDS (4) of all streams
	RISKD_DIFFERENTIAL_SEEDS=$(or $(SEEDS),4) RISKD_DIFFERENTIAL_COMMANDS=$(or $(COMMANDS),100000) \
		$(SANITIZED) $(BIN)/python -m pytest -q tests/differential -k answer_alike

test-parity: $(READY) ## send COMMANDS (1000000) from SEED (1) through library, control server and native door
	RISKD_PARITY_COMMANDS=$(or $(COMMANDS),1000000) RISKD_PARITY_SEED=$(or $(SEED),1) \
		$(SANITIZED) $(BIN)/python -m pytest -q tests/service/test_doors.py

interop: $(READY) ## run other people's gRPC clients against both doors (CLIENTS="tonic ghz", or all)
	$(BIN)/python -m tests.interop $(CLIENTS)

h2spec: $(READY) ## test the native door's HTTP/2 with h2spec
	$(BIN)/python -m tests.interop.h2spec

fuzz: $(READY) ## fuzz decoder, HTTP/2 session and journal reader, SECONDS_EACH (600) for each
	.ci/require clang
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS_EACH),600)

soak: $(READY) ## send CALLS (10000000) to the native door, with connections that come and go
	$(BIN)/python -m tests.soak --calls $(or $(CALLS),10000000)

simulate: $(READY) ## simulate clients, clock, disk faults and restarts from SEEDS seeds (1000)
	$(SANITIZED) $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000)

bench: $(READY) ## run all benchmarks
	$(BIN)/python benchmarks/run.py

bench-listener: $(READY) ## measure the native door beside its peers, and draw build/bench/listener.html
	.ci/require cc nghttp2 openssl grpc++
	$(BIN)/python benchmarks/run.py listener

lint: $(READY) $(VENV)/.stamp-buf-$(BUF_VERSION) ## check style, types, stubs and the proto contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH=$(BIN):$$PATH cython-lint ext
	$(BIN)/mypy $(CHECKED) .ci/*.py
	$(if $(CLIENT),$(BIN)/mypy clients/python)
	$(SANITIZED) MYPYPATH=ext $(BIN)/python -m mypy.stubtest riskd.core --concise \
		--ignore-disjoint-bases --ignore-unused-allowlist --allowlist .ci/stubtest-allowlist.txt
	$(BUF) lint proto
	$(BUF) format --diff --exit-code proto
	.ci/buf-breaking $(BUF)

format: $(VENV)/.stamp-tools $(VENV)/.stamp-buf-$(BUF_VERSION) ## rewrite Python and proto files in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BUF) format --write proto

conformance: $(READY) ## write the tables of docs/conformance.md
	$(SANITIZED) $(BIN)/python .ci/conformance.py

proto: $(VENV)/.stamp-tools ## generate the protobuf code
	$(BIN)/python .ci/generate_proto.py

wheel: $(VENV)/.stamp-tools ## build a wheel into dist/
	rm -rf build/lib* dist
	RISKD_DEBUG= PIP_CONSTRAINT=$(CURDIR)/.ci/constraints.txt $(BIN)/python -m build --wheel

wheel-check: wheel ## install the wheel into an empty environment and import it
	PYTHON=$(BIN)/python .ci/wheel-check

constraints: $(VENV)/.stamp-tools ## pin all dependencies anew
	$(BIN)/python .ci/constraints.py

clean: ## remove everything that was built, installed or generated
	rm -rf $(VENV) build dist *.egg-info riskd/v1 clients/python/riskd_client/v1
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ext riskd -name '*.so' -delete

$(VENV)/.stamp-tools: .ci/constraints.txt .ci/require
	.ci/require python cc
	.ci/require nghttp2 openssl || echo 'riskd is built without its native listener' >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .ci/constraints.txt
	@touch $@

# setup.py also generates the protobuf code. What is up to date is not built again.
$(BUILT): $(VENV)/.stamp-tools setup.py .ci/generate_proto.py $(PROTOS) $(CORE)
	@rm -f $(VENV)/.stamp-debug $(VENV)/.stamp-thread $(VENV)/.stamp-release
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

# After the build, so that a compiler's message is not buried in pip's.
$(VENV)/.stamp-install: pyproject.toml setup.py $(CLIENT) $(VENV)/.stamp-tools | $(BUILT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--constraint .ci/constraints.txt --editable . $(if $(CLIENT),--editable clients/python)
	@touch $@

$(VENV)/.stamp-buf-$(BUF_VERSION): $(VENV)/.stamp-tools
	.ci/require npm
	npm install --silent --no-fund --no-audit --prefix $(VENV)/node @bufbuild/buf@$(BUF_VERSION)
	@touch $@
