# Every target says what it needs and installs it; see docs/development.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV ?= .venv
PYTEST := . $(VENV)/bin/activate && pytest
export VENV PYTHON

.PHONY: help demo demo-down test lint unit modules runs molecule sanity importer bench build changelog lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## Start the platform in miniature and run the procedures on it; FAULT=<name> breaks it first
	@tools/bootstrap demo && tools/demo $(FAULT)

demo-down: ## Stop the platform of the demo
	@tools/demo down

test: ## Everything: gates, tests, sanity and Molecule
	@tools/bootstrap test && tools/test

lint: ## All static gates; one of them: tools/lint <gate>
	@tools/bootstrap lint && tools/lint

unit: ## Tests of the domain code
	@tools/bootstrap lint && $(PYTEST) tests/unit

modules: ## Tests of modules against real servers
	@tools/bootstrap test && $(PYTEST) tests/modules

runs: ## Tests of the shipped playbooks on the platform in miniature
	@tools/bootstrap test && $(PYTEST) tests/runs

molecule: ## Roles and playbooks on Docker hosts with systemd; SCENARIO=<name> for one
	@tools/bootstrap test && tools/molecule $(SCENARIO)

sanity: ## ansible-test sanity in a copy outside the repository
	@tools/bootstrap lint && tools/sanity

importer: ## What Galaxy checks when the archive is uploaded
	@tools/bootstrap lint && tools/importer

bench: ## Speed, side by side with what one would use instead
	@tools/bootstrap test && . $(VENV)/bin/activate && python -m tests.bench

build: ## The collection's archive
	@tools/bootstrap lint && . $(VENV)/bin/activate && ansible-galaxy collection build --force

changelog: ## Write CHANGELOG.md for the version in galaxy.yml anew
	@tools/bootstrap lint && . $(VENV)/bin/activate && \
	  antsibull-changelog release --update-existing --refresh-plugins --reload-plugins

lock: ## Lock the Python packages of development anew
	@tools/bootstrap lint && . $(VENV)/bin/activate && \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --custom-compile-command "make lock" \
	    requirements-dev.in -o requirements-dev.lock && \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --custom-compile-command "make lock" \
	    requirements-importer.in -o requirements-importer.lock

clean: ## Remove what was built, cached and installed here
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/upkeep.ops" .venv .cache .demo .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis upkeep-ops-*.tar.gz
