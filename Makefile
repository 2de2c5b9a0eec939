# Everything runs in .venv, made from constraints.txt with pip alone. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help checkout setup run exp queue scores compare test test-faults test-faults-full fuzz hour ui schedule status cleanup pretrained bench sanity clean
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := true
export PREFECT_HOME := $(CURDIR)/.state/prefect
# A proxy cannot reach the servers of `make ui` and `make schedule`.
comma := ,
export NO_PROXY := $(addsuffix $(comma),$(or $(no_proxy),$(NO_PROXY)))127.0.0.1,localhost
export no_proxy := $(NO_PROXY)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/ready ## make .venv and install everything into it

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "Installing what constraints.txt lists into .venv: about 2 GB, 2 to 10 minutes, once ..."
	$(PYTHON) -m venv .venv
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,pipeline,dask,test]'
	touch $@

checkout:
	@command -v git >/dev/null || { echo "error: git is not installed, and DVC needs it; install git and run this again"; exit 1; }
	@test -e .git || { echo "error: $(CURDIR) is no Git checkout, and DVC needs one; clone the project," \
		"or run: git init && git add --all && git -c user.name=me -c user.email=me@localhost commit -qm start"; exit 1; }

# make run                                 what params.yaml says: the embedded data set
# make run DATA=../videos                  your folder of videos, as the run `videos`; NAME=... names it otherwise
# make run CONF=weizmann                   a configuration of conf/; DATA=... where its videos are elsewhere
ifdef DATA
CONF ?= folder
endif
run: checkout setup ## train, sample, score and report what is active in params.yaml (CONF=name of conf/, DATA=folder of videos, NAME=of the run)
ifdef CONF
	python -m pipeline.params use $(CONF) $(if $(DATA),--path "$(DATA)") $(if $(NAME),--name "$(NAME)")
endif
	python -m pipeline.checks
	dvc repro || { python -m pipeline.params restore; exit 1; }
	python -m pipeline.summary

# make exp SET="train.steps=4000 train.lr_decay=4200", or SET='sample.classes=[DiscLeft, BarUp]'; an experiment is a commit
# beside the branch, so Git wants a name.
exp queue: export GIT_AUTHOR_NAME ?= $(or $(shell git config user.name),hrvgan)
exp queue: export GIT_AUTHOR_EMAIL ?= $(or $(shell git config user.email),hrvgan@localhost)
exp queue: export GIT_COMMITTER_NAME ?= $(GIT_AUTHOR_NAME)
exp queue: export GIT_COMMITTER_EMAIL ?= $(GIT_AUTHOR_EMAIL)
exp: checkout setup ## the same with other settings, recorded as an experiment: SET="train.batch_size=32"
	python -m pipeline.experiment "$$SET"
	python -m pipeline.summary

queue: checkout setup ## several experiments, two at a time: SEEDS=1,2,3 SET="train.batch_size=16,32"; dvc queue status
	python -m pipeline.experiment --queue --seeds "$(SEEDS)" "$$SET"
	dvc queue start -j 2

scores: setup ## the active runs as rows, their scores as columns
	python -m pipeline.compare --active

compare: setup ## the same of active runs and experiments, beside the settings in which they differ
	python -m pipeline.compare

test: setup ## the tests
	ruff check .
	ruff format --check .
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=10

test-faults: setup ## the tests that kill, damage files, train in several processes, or deploy to a server
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=10 -m faults

test-faults-full: export HRVGAN_FAULTS := full
test-faults-full: test-faults fuzz ## the same with more kills and more damaged files, then make fuzz

ui: setup ## MLflow on the recorded runs, at http://127.0.0.1:5000 (PORT=5000)
	python -m pipeline.tracking ui $(if $(PORT),--port $(PORT))

status: setup ## on one screen: champions, last and next night, what is out of date, what runs now
	python -m pipeline.status

cleanup: setup ## what is kept for longer than the rule says (python -m pipeline.cleanup --help); APPLY=1 removes it
	python -m pipeline.cleanup $(if $(APPLY),--apply)

schedule: setup ## Prefect server, worker and deployments, until Ctrl-C
	python -m flows.serve $(if $(PORT),--port $(PORT))

pretrained: ## models/laptop becomes the model that comes with the package, shapes-32
	cp models/laptop/model.json models/laptop/model.safetensors hrvgan/pretrained/shapes-32

bench: setup ## what we claim about speed, against a plain version or a floor
	python -m benchmarks.training_step --sizes 32 64 --rivals
	python -m benchmarks.drawing --sizes 32 64
	python -m benchmarks.convolutions
	python -m benchmarks.elementwise
	python -m benchmarks.clip_reads
	python -m benchmarks.overhead
	python -m benchmarks.features
	python -m benchmarks.frechet
	python -m benchmarks.decode_speed

sanity: setup ## what each metric answers to real clips, spoilt in known ways (DATASET=shapes)
	python -m benchmarks.sanity $(if $(DATASET),$(DATASET))

hour: setup ## an hour of 1080p video through extraction: time and memory
	python -m benchmarks.long_video

fuzz: setup ## 2,000 damaged video files through extraction, every one accounted for (SEEDS=folder of real files)
	python -m tests.fuzz --count 2000 $(if $(SEEDS),--seeds "$(SEEDS)")

clean: ## remove .venv and caches; data, models and state stay
	rm -rf .venv .pytest_cache .ruff_cache
