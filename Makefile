# The whole developer interface. `make help` lists it; README.md explains it.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m launcher

# Settings, passed on through the environment. `make help` and docs/reference/settings.md print these lines.
#@ DATA=folder              photos/<class>/<any name>.jpg; without it a small public set
#@ WEIGHTS=file             a state_dict file, imagenet or none; default: imagenet where it can be reached
#@ ARCHITECTURE=mobilenet_v2  any classifier of torchvision, or of timm: timm:tf_efficientnet_lite0
#@ CANDIDATES=names         architectures of make compare, in quotes, each with its weights: "mobilenet_v2=file.pth resnet18=file.pth"
#@ TRIALS=12                trials of the hyperparameter search, 1 to 500
#@ CONF={"strategy":"finetune"}  params of train_and_deploy as JSON
#@ IMAGE=photo.jpg          the photos of make predict: a file, a folder, or several
#@ ENDPOINT=name            the endpoint of make predict, deploy and rollback; default: the last run's, or the only one
#@ VERSION=3                the model version of make deploy; default: the newest approved
#@ DATASET=name             the data set of make deploy and rollback; default: the only one with a model
#@ SERVICE=name             the service of make logs; default: all
#@ ONLY=name                the program of make bench; default: all
#@ ARGS=--rounds=1           options of that program; several in quotes
#@ AIRFLOW_PORT=8080        port of Airflow on 127.0.0.1
#@ LOCAL_AWS_PORT=4566      port of local_aws on 127.0.0.1
#@ NOTEBOOK_PORT=8888       port of JupyterLab on 127.0.0.1
#@ ML_PIPELINE_HOME=.run    folder of everything a run writes; make clean removes it
#@ ML_PIPELINE_DATABASE=postgresql+psycopg2://...  Airflow's database; default: SQLite in ML_PIPELINE_HOME
#@ PYTHON=python3.11        the interpreter of the virtual environment: 3.11, 3.12 or 3.13
#@ CONTAINERS=0             make test-slow without building the images and running docker-compose.yaml on Podman
#@ GPU=1                    CUDA builds of torch; 0: CPU builds; default: CUDA where an NVIDIA driver is present
export DATA WEIGHTS ARCHITECTURE TRIALS CONF AIRFLOW_PORT LOCAL_AWS_PORT NOTEBOOK_PORT ML_PIPELINE_HOME ML_PIPELINE_DATABASE GPU

.DEFAULT_GOAL := help
.PHONY: watch compare help setup any-setup run up status predict deploy rollback notebook logs open doctor stop clean check docs test test-slow test-matrix wheels mwaa sbom audit bench lock

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "settings, as in make run TRIALS=20:"
	@awk '/^#@ / {name = $$2; $$1 = $$2 = ""; printf "  %-32s%s\n", name, $$0}' $(MAKEFILE_LIST)

setup: ## create the virtual environment from requirements.lock (other commands call it)
	@$(PYTHON) launcher/bootstrap.py $(VENV)

# status, stop and clean also work in an environment of an older lock: no network and no space needed.
any-setup:
	@$(PYTHON) launcher/bootstrap.py --any $(VENV)

run: setup ## train, deploy and serve a classifier of the photos in DATA=
	@$(RUN) run

up: setup ## start the services without a run
	@$(RUN) up

status: any-setup ## show the services and the result of the last run
	@$(RUN) status

predict: setup ## classify IMAGE=photo.jpg with the deployed endpoint
	@$(RUN) predict "$(IMAGE)" $(if $(ENDPOINT),--endpoint "$(ENDPOINT)")

compare: setup ## train several architectures on DATA and compare accuracy, time, price and size
	@$(BIN)/python -m model_code.compare "$(DATA)" $(CANDIDATES) --output "$(or $(ML_PIPELINE_HOME),.run)/compare"

watch: any-setup ## look at what the endpoints were asked, or one: ENDPOINT=name
	@$(RUN) watch $(if $(ENDPOINT),--endpoint "$(ENDPOINT)")

deploy: setup ## deploy model version VERSION= from the registry
	@$(RUN) deploy "$(VERSION)" --dataset "$(DATASET)" --endpoint "$(ENDPOINT)"

rollback: setup ## deploy the model version before the one in service
	@$(RUN) rollback --dataset "$(DATASET)" --endpoint "$(ENDPOINT)"

notebook: setup ## open JupyterLab on 127.0.0.1 with the notebooks, ready for local_aws
	@$(RUN) notebook

logs: any-setup ## follow the logs of the services, or SERVICE=scheduler
	@$(RUN) logs --service "$(SERVICE)"

open: any-setup ## open Airflow in the browser
	@$(RUN) open

doctor: any-setup ## show what is missing for local use and for AWS, and how to fix it
	@$(RUN) doctor

stop: any-setup ## stop every process; finished work is kept
	@$(RUN) stop

clean: any-setup ## stop, and remove everything that runs wrote (not the environment)
	@$(RUN) clean

check: setup ## check lint, docstrings, format, words, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m tools.check_words
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: setup ## rewrite the generated tables of the docs
	@$(BIN)/python -m tools.reference

test: setup ## run the tests, under 12 minutes on 2 cores
	@# Three on 2 cores: tests of services wait about as long as they compute.
	@$(BIN)/python -m pytest tests -n 3 --dist loadfile --no-loadscope-reorder

test-slow: setup ## run the slow tests: crash matrix, containers, clean installs
	@$(BIN)/python -m pytest tests -m slow -n 3 --dist loadfile --no-loadscope-reorder --timeout=1200

test-matrix: setup ## run the wheels on every Python that is installed (before a release)
	@MATRIX=1 $(BIN)/python -m pytest tests/packages -m "slow or not slow" --timeout=1500

wheels: setup ## build the wheels of the three distributions into dist/
	@$(BIN)/python -m tools.wheels

mwaa: setup ## build plugins.zip, requirements.txt and dags.zip for Amazon MWAA into dist/mwaa/
	@$(BIN)/python -m tools.mwaa

sbom: setup ## write dist/sbom.cdx.json: every package of the environment with version and license (CycloneDX)
	@$(BIN)/python -m tools.supply_chain sbom

audit: setup ## look up known vulnerabilities of requirements.lock at pypi.org (pip-audit)
	@$(BIN)/python -m tools.supply_chain audit

bench: setup ## run every program in benchmarks/, or ONLY=<name> with the options in ARGS=
	@$(BIN)/python -m benchmarks $(ONLY) $(ARGS)

lock: ## resolve requirements*.in into requirements*.lock
	@$(PYTHON) -m tools.lock
