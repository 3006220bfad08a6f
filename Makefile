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

test: setup ## Run what each change has to pass; ONLY=default one scenario, E2E='-k name' some of its tests, KEEP=1 keeps it
	pytest -o verbosity_subtests=1 $(if $(ONLY),tests/scenarios -k $(ONLY),tests/unit tests/scenarios -m 'not slow')

test-slow: setup ## Run what is too slow for each change: upgrades, faults, abuse, load, restore, rarer TLS choices, DNS providers, Caddy with DNS
	pytest -o verbosity_subtests=1 -m slow tests/slow tests/scenarios

lint: venv ## Run the linters
	pytest tests/unit/test_lint.py

unit: venv ## Run the tests that need no instance
	pytest tests/unit

demo: setup ## Start a tunnel host on this machine and open a tunnel
	@python tools/demo.py up

demo-down: venv ## Remove every trace of it
	@python tools/demo.py down

bench: setup ## Measure the host of `molecule converge`
	python tests/bench/bench.py

soak: setup ## Use and break the host of `molecule converge` for HOURS=1, and report
	python tests/soak/soak.py --hours $(or $(HOURS),1)

clean: ## Remove the scenarios, the test images and .venv
	@if [ -e .venv/ready ]; then python tools/demo.py clean; fi
	rm -rf .venv .cache .pytest_cache .ruff_cache build

.PHONY: help venv setup test test-slow lint unit demo demo-down bench soak clean
