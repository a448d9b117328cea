# `make` alone lists the targets. Everything that a target needs is installed into .venv first, from hashes.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
FULL ?=
MINUTES ?= 60
SECONDS ?= 600
DATABASE ?= postgresql
REPORT ?= var/soak-$(DATABASE).md
# The version of the contract that `make proto-breaking` compares with.
AGAINST ?= main

BIN := .venv/bin
READY := .venv/.ready
GRPC_ADDRESS = $(or $(COURSE_GRPC_ADDRESS),127.0.0.1:50051)

PROTO := course/v1/course.proto
PROTOC := $(BIN)/python -m grpc_tools.protoc -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: help setup run demo-secure audit test fuzz test-faults test-failover soak bench bench-replicas lint format typecheck proto proto-check proto-lint proto-breaking protos wheel migrate purge lock

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## install everything into .venv (Python 3.11 or newer)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with: make PYTHON=python3.13" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: migrate  ## migrate, then serve gRPC and HTTP (on SQLite unless COURSE_DATABASE_URL says otherwise)
	@echo 'Once it serves, type in another terminal:'
	@echo "  $(BIN)/buf curl --protocol grpc --http2-prior-knowledge -d '{\"course\":{\"title\":\"Biology\"}}' http://$(GRPC_ADDRESS)/course.v1.CourseService/CreateCourse"
	@echo "  grpcurl -plaintext -d '{\"course\":{\"title\":\"Biology\"}}' $(GRPC_ADDRESS) course.v1.CourseService/CreateCourse"
	@echo 'Ctrl-C stops it.'
	@exec $(BIN)/python -m course_service

demo-secure: $(READY)  ## serve with throw-away certificates and tokens, and print what a reader, an editor and a stranger type
	@exec $(BIN)/python -m deploy.demo_secure

migrate: $(READY)  ## bring the database of COURSE_DATABASE_URL to the newest schema
	@$(BIN)/python -m course_service migrate

purge: $(READY)  ## remove deleted courses and idempotency records that are past their time
	@$(BIN)/python -m course_service purge

test: $(READY)  ## run the tests, on SQLite and on a PostgreSQL from a wheel
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4

test-faults: $(READY)  ## make faults and hold the service against them: about 8 minutes; FULL=1: full counts, hours
	@FULL=$(FULL) $(BIN)/pytest tests/faults $(AGAIN)

fuzz: $(READY)  ## make up tokens, headers and certificates for as long: SECONDS=600
	@FUZZ_SECONDS=$(SECONDS) $(BIN)/pytest tests/test_tokens.py tests/test_certificates.py -k whatever\ or\ bytes

test-failover: $(READY)  ## three PostgreSQLs under Patroni, where it is installed: kill, switch over and freeze the primary
	@$(BIN)/pytest tests/failover

soak: $(READY)  ## a long run under faults: MINUTES=60 DATABASE=postgresql (or sqlite) REPORT=var/soak.md
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) --database $(DATABASE) --report $(REPORT)

bench: $(READY)  ## what a call costs beside peers (10 minutes); SHORT=1: a minute; AGAINST=main: and that commit; SIZE=1: a million courses
	@$(BIN)/python -m benchmarks $(if $(SHORT),--short) $(if $(SIZE),--size) --against "$(if $(filter command line environment,$(origin AGAINST)),$(AGAINST))"

bench-replicas: $(READY)  ## calls/s, CPU and spread with 1, 2 and 3 replicas, by round_robin and behind Envoy: a minute
	@$(BIN)/python -m benchmarks.replicas

lint: $(READY)  ## ruff: style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(READY)  ## format Python and the proto
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format
	@$(BIN)/buf format -w

typecheck: $(READY)  ## mypy --strict
	@$(BIN)/mypy

proto: $(READY)  ## regenerate the stubs in generated/
	@rm -rf generated && mkdir -p generated/course && touch generated/course/py.typed
	@$(PROTOC) -Iprotos --plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=generated --mypy_out=quiet:generated --grpc_python_out=generated --mypy_grpc_out=quiet:generated $(PROTO)
	@cp protos/course/v1/course_grpc_service_config.json generated/course/v1/

proto-check: proto  ## fail if generated/ is not what `make proto` makes
	@drift=$$(git status --porcelain -- generated); test -z "$$drift" || { echo "generated/ differs from protos/; run make proto and commit:"; echo "$$drift"; exit 1; }

proto-lint: $(READY) var/contract.binpb  ## buf: style and formatting of the contract
	@$(BIN)/buf lint var/contract.binpb --path $(PROTO)
	@$(BIN)/buf format --diff --exit-code

proto-breaking: $(READY) var/contract.binpb  ## buf: fail if the contract breaks callers of AGAINST (default: main)
	@rm -rf var/against && mkdir -p var/against && git archive $(AGAINST) protos | tar -x -C var/against
	@$(PROTOC) -Ivar/against/protos --include_imports --descriptor_set_out=var/against.binpb $(PROTO)
	@$(BIN)/buf breaking var/contract.binpb --against var/against.binpb --path $(PROTO)

protos: $(READY)  ## pack the contract for callers in any language: dist/course-protos.tar.gz, dist/course.binpb
	@mkdir -p dist
	@$(PROTOC) -Iprotos --include_imports --include_source_info --descriptor_set_out=dist/course.binpb $(PROTO) google/rpc/status.proto google/rpc/error_details.proto
	@$(BIN)/python protos/pack.py dist/course.binpb dist/course-protos.tar.gz

wheel: $(READY)  ## build the wheel (stubs for Python callers, and the service) and its bill of materials: dist/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .
	@$(BIN)/cyclonedx-py requirements requirements.lock --output-reproducible --of JSON -o dist/bom.json
	@ls dist/*.whl dist/bom.json

# buf reads an image made by protoc, because it finds google/api/*.proto in the installed package and buf cannot.
var/contract.binpb: protos/$(PROTO) | $(READY)
	@mkdir -p var
	@$(PROTOC) -Iprotos --include_imports --include_source_info --descriptor_set_out=$@ $(PROTO)

audit: $(READY)  ## look the locked dependencies up for known vulnerabilities; says so where the network does not reach
	@$(BIN)/python -m deploy.audit

lock: $(READY)  ## renew the lock files after a change of pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra server --extra otel pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -c requirements.lock --extra server --extra otel --group dev pyproject.toml -o requirements-dev.lock
