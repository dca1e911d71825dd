# The whole developer interface. `make help` lists it; README.md explains it.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m launcher

# Settings of make run, handed on through the environment.
export DATA WEIGHTS ARCHITECTURE TRIALS CONF AIRFLOW_PORT LOCAL_AWS_PORT ML_PIPELINE_HOME

.DEFAULT_GOAL := help
.PHONY: help setup any-setup run up status predict stop clean check test test-slow bench lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the virtual environment, from requirements.lock (what needs it calls it)
	@$(PYTHON) launcher/bootstrap.py $(VENV)

# To look and to stop, an environment of an older lock will do: it needs no network and no space.
any-setup:
	@$(PYTHON) launcher/bootstrap.py --any $(VENV)

run: setup ## photos in, a served classifier out: DATA= WEIGHTS= ARCHITECTURE= TRIALS=
	@$(RUN) run

up: setup ## the services without a run
	@$(RUN) up

status: any-setup ## what is up, and how the last run ended
	@$(RUN) status

predict: setup ## classify IMAGE=photo.jpg with the deployed endpoint
	@$(RUN) predict "$(IMAGE)" $(if $(ENDPOINT),--endpoint "$(ENDPOINT)")

stop: any-setup ## stop every process; nothing finished is lost
	@$(RUN) stop

clean: any-setup ## stop, and remove what runs made (not the environment)
	@$(RUN) clean

check: setup ## lint, docstrings, format, words, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m tools.check_words
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: setup ## the tests, under 12 minutes on 2 cores
	@$(BIN)/python -m pytest tests -n 2 --dist loadfile

test-slow: setup ## crash matrix, IAM, clean installs: at most 45 minutes
	@$(BIN)/python -m pytest tests -m slow -n 2 --dist loadfile --timeout=1200

bench: setup ## every program in benchmarks/, or ONLY=<name>
	@$(BIN)/python -m benchmarks $(ONLY)

lock: ## resolve requirements*.in anew into requirements.lock
	@$(PYTHON) launcher/bootstrap.py --lock $(VENV)
