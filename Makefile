# SPDX-License-Identifier: GPL-3.0-or-later
PYTHON ?= python3
# Variables of the command line (make demo TUNNEL_SSH_PORT=2022) reach the programs by themselves.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

.venv/ready: requirements-dev.txt
	@tools/venv.sh $(PYTHON)

venv: .venv/ready ## Make .venv, with the tools of requirements-dev.txt

setup: .venv/ready ## Make .venv, and have a Docker engine
	@tools/engine.sh

# How many scenarios run side by side.
JOBS ?= 2
# An instance that somebody works on is not meant.
PYTEST = env --unset PROXME_SCENARIO pytest --verbose --durations 10 --no-loadscope-reorder

test: setup ## Run what each change has to pass; ONLY=default one scenario, E2E='-k name' some of its tests, KEEP=1 keeps it
	$(if $(E2E),$(if $(ONLY),,$(error E2E needs a scenario: make test ONLY=default E2E='$(E2E)')))
	$(PYTEST) --numprocesses $(JOBS) $(if $(ONLY),tests/e2e --scenario $(ONLY) $(E2E),tests/unit tests/e2e -m 'not slow')

test-slow: setup ## Run what is too slow for each change: upgrades, rarer faults, abuse, load, restore, rarer TLS choices, DNS providers, Caddy with DNS
	@code=0; \
	$(PYTEST) --numprocesses $(JOBS) tests/slow tests/unit tests/e2e -m 'slow and not alone' || code=$$?; \
	[ $$code -gt 1 ] || $(PYTEST) --numprocesses 1 tests/e2e -m 'slow and alone' || code=$$?; \
	exit $$code

test-apps: setup ## Try the servers of docs/applications.md; APPS='guest-vite guest-django' some of them. Needs Node for some
	molecule converge -s default
	python tests/apps/apps.py $(APPS)

lint: venv ## Run the linters
	pytest tests/unit/test_lint.py

unit: setup ## Run the linters and the tests that need no instance
	pytest --numprocesses auto --dist loadfile tests/unit -m 'not slow and not galaxy'

demo: setup ## Start a tunnel host on this machine and open a tunnel
	@python tools/demo.py up

demo-down: venv ## Remove every trace of it
	@python tools/demo.py down

site: venv ## Build the documents as a site, in build/site
	mkdocs build --strict --quiet

test-clients: setup ## Run the programs of docs/libraries.md against the host of `molecule converge`; needs Go, Node.js, Java, Maven
	pytest --verbose tests/clients

bench: setup ## Measure the host of `molecule converge`
	python tests/bench/bench.py

soak: setup ## Use and break the host of `molecule converge` for HOURS=1, and report
	python tests/soak/soak.py --hours $(or $(HOURS),1)

clean: ## Remove the scenarios, the test images and .venv
	@if [ -e .venv/ready ]; then python tools/demo.py clean; fi
	rm -rf .venv .cache .pytest_cache .ruff_cache build

.PHONY: help venv setup test test-slow test-apps test-clients lint unit demo demo-down site bench soak clean
