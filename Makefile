# make course | test | lab | bot | badges | data-card: each one sets up everything that it needs, once
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready

.PHONY: course test lab bot badges data-card format refresh model

course: model
	$(RUN) -m helpers.course $(NOTEBOOKS)

test: model
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check .
	COURSE_SIZE=smoke OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-cell-timeout=600 tests notebooks

lab: model
	$(RUN) -m jupyter lab --ip=127.0.0.1 notebooks

bot: model
	$(RUN) -m helpers.consultation

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
	$(RUN) -m pip install --quiet -r tests/requirements.txt -c constraints.txt
	@touch $@
