# make course | test | lab | bot | html | badges | data-card: each one sets up everything that it needs, once
# before a term: make outdated | test-oldest | test-newest
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
PACKAGES = -r tests/requirements.txt -c constraints.txt

.PHONY: course test lint suite test-oldest test-newest outdated lab bot html bench badges data-card format refresh model

course: model
	$(RUN) -m helpers.course $(NOTEBOOKS)

test: lint suite

lint: $(READY)
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

suite: model
	COURSE_SIZE=smoke OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-cell-timeout=600 tests notebooks

# the same suite at both ends of the ranges; without ruff, whose versions disagree about layout
test-oldest:
	mkdir -p .venv-oldest && sed -E 's/>=([^,# ]+).*/==\1/' requirements.txt > .venv-oldest/lowest.txt
	$(MAKE) suite VENV=.venv-oldest PACKAGES="-r tests/requirements.txt -c .venv-oldest/lowest.txt"

test-newest:
	rm -f .venv-newest/.ready
	$(MAKE) suite VENV=.venv-newest PACKAGES="--upgrade --upgrade-strategy eager -r tests/requirements.txt"

outdated: $(READY)
	$(RUN) tests/outdated.py

lab: model
	$(RUN) -m jupyter lab --ip=127.0.0.1 notebooks

bot: model
	$(RUN) -m helpers.bot

# the notebooks as committed, as a static site; its tools stay out of .venv
html: .venv-site/.ready
	rm -rf outputs/site outputs/site-source && mkdir -p outputs/site-source
	cp notebooks/*.ipynb site/index.md outputs/site-source
	.venv-site/bin/python -m sphinx --quiet --fail-on-warning -c site outputs/site-source outputs/site
	@echo "outputs/site/index.html"

# hours; BENCH="--rows 96 --rounds 1" for a shorter race, BENCH="--rows 96 --held-out 16 --only course --keep" to measure
# the course alone again, as after a change of 7.6; nothing else may run on the machine meanwhile
bench: model .venv-slides/.ready .venv-llamafactory/.ready
	$(RUN) -m benchmarks.race $(BENCH)
	$(RUN) -m benchmarks.ablation
	$(RUN) -m benchmarks.profiling
	$(RUN) -m benchmarks.scaling
	$(RUN) -m benchmarks.generation
	$(RUN) -m benchmarks.report

data-card: $(READY)
	$(RUN) -m helpers.data_card

badges: $(READY)
	$(RUN) -m helpers.colab --repository "$(REPO)" $(if $(BRANCH),--branch "$(BRANCH)")

format: $(READY)
	$(RUN) -m ruff check --fix . ; $(RUN) -m ruff format .

# after a green `make course`: the committed notebooks get the outputs of that run
refresh: $(READY)
	cp outputs/7.*.ipynb notebooks/ && $(RUN) -m ruff format notebooks

model: $(READY)
	@$(RUN) -m helpers.models

$(READY): requirements.txt constraints.txt tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet $(PACKAGES)
	@touch $@

.venv-site/.ready: site/requirements.txt
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet -r site/requirements.txt
	@touch $@

# the environments of the contestants whose libraries clash with the course's; the compiled parts of torchvision and
# torchaudio are for pictures and sound, and beside another build of torch they stop transformers
.venv-slides/.ready .venv-llamafactory/.ready: .venv-%/.ready: benchmarks/contestants/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet -r $<
	.venv-$*/bin/python -m pip uninstall --quiet --yes torchvision
	rm -f .venv-$*/lib/python*/site-packages/torchaudio/lib/*.so
	@touch $@
