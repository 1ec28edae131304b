VENV ?= .venv
PYTHON ?= python3
MODEL ?= fixtures/same_stack.onnx
SECONDS ?= 60
SHARE ?= 0.25
COUNT ?= 10000
BIN := $(VENV)/bin
SMOKE := $(foreach name,architecture support readme analysis delays windows lower runtime conv recurrent reshape,\
	$(wildcard tests/test_$(name).py tests/*/test_$(name).py))

.PHONY: demo smoke test lint conformance conformance-sample fuzz fuzz-sample second second-sample twins badfiles mutants venv clean

demo: $(VENV)/.installed
	@mkdir -p build/demo
	$(BIN)/pulsify-onnx convert $(MODEL) -o build/demo/pulsed.onnx --pulse 16 --end-of-stream
	$(BIN)/pulsify-onnx verify $(MODEL) build/demo/pulsed.onnx --seed 1
	$(BIN)/pulsify-onnx inspect $(MODEL) --frame-rate 100

# less than a minute: some tests of every room
smoke: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -q $(SMOKE)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -rs -q

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict pulsify_onnx

# every test case of the onnx package along every axis; the sample is drawn anew with every commit
conformance: $(VENV)/.installed-dev
	$(BIN)/python -m tools.conformance

conformance-sample: $(VENV)/.installed-dev
	$(BIN)/python -m tools.conformance --share $(SHARE) --seed "$$(git rev-parse HEAD)"

# random networks, others every time
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tools.fuzz --seconds $(SECONDS)

# a minute of them, drawn anew with every commit
fuzz-sample: $(VENV)/.installed-dev
	$(BIN)/python -m tools.fuzz --seconds $(SECONDS) --seed "$$(printf %d "0x$$(git rev-parse HEAD | cut -c1-7)")"

# networks in the idioms of exporters, by a generator and a runner that know the package by its README and docs alone
second: $(VENV)/.installed-dev
	$(BIN)/python -m tools.second --seconds $(SECONDS)

second-sample: $(VENV)/.installed-dev
	$(BIN)/python -m tools.second --seconds 45

# exports of random networks for one length against the networks themselves
twins: $(VENV)/.installed-dev
	$(BIN)/python -m tools.fixed --seconds $(SECONDS)

# thousands of broken models: one line and an exit code for each
badfiles: $(VENV)/.installed-dev
	$(BIN)/python -m tools.badfiles --count $(COUNT)

# the tool broken on purpose, one place at a time: the tests must see each; first faults by name, then some drawn from the source
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tools.mutants --named
	$(BIN)/python -m tools.mutants --seconds $(SECONDS) --seed "$$(date +%s)"

venv: $(VENV)/.installed-dev

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
