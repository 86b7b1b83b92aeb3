# Every target makes a .venv when there is none. PYTHON may name another interpreter (>= 3.11),
# TORCH_INDEX the index that torch comes from, as pip's --index-url: one of CPU wheels spares most
# of the download where there is no GPU.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := .venv/.demo
# As pip said on Linux (x86-64) for the demo, 2026-11-27.
FROM_PIP := With CUDA, as torch comes on Linux, that is 3.3 GB; TORCH_INDEX=... takes other wheels.
FROM_INDEX := torch comes from $(TORCH_INDEX); with CPU wheels that is 0.4 GB.
PIP := $(BIN)/python -m pip install --disable-pip-version-check
OLDEST_PIP := .venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt
TESTS := -n 2 --dist loadfile --no-loadscope-reorder -p no:benchmark

.PHONY: install demo test coverage test-oldest parity mutants check bench docs chromium browser scale

install: $(STAMP)

# Says what comes, makes .venv, and has pip install contar with the extras that a target names.
define packages
@echo "Installing contar[$(EXTRAS)] and what it needs into .venv, once. pip says each package's"
@echo "size as it downloads it. $(if $(TORCH_INDEX),$(FROM_INDEX),$(FROM_PIP))"
@echo "At the end it unpacks them, which takes a minute or two and is not counted."
test -x $(BIN)/python || $(PYTHON) -m venv .venv
$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) "torch>=2.10" torchvision)
$(PIP) -e ".[$(EXTRAS)]"
endef

$(STAMP): EXTRAS := dev,scale
$(STAMP): pyproject.toml
	$(packages)
	touch $@ $(DEMO)

# The demo needs fewer packages than the tests.
$(DEMO): EXTRAS := demo,video
$(DEMO): pyproject.toml
	$(packages)
	touch $@

demo: $(DEMO)
	$(BIN)/contar demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest $(TESTS)

# The tests, those of the page of `contar serve` among them, and the share of statements that they
# run, also in processes that they begin, for twice the time.
coverage: chromium
	$(BIN)/python -m pytest $(TESTS) --cov --cov-report=term:skip-covered --cov-fail-under=98

# The tests with the lowest versions that pyproject.toml allows, in an environment of their own.
test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest $(TESTS)

.venv-oldest/.installed: pyproject.toml tests/oldest.py
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/constraints.txt
	$(if $(TORCH_INDEX),$(OLDEST_PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(OLDEST_PIP) -e ".[dev]"
	touch $@

# Chromium, which apt brings if there is none, and what drives it. Gradio takes another Pillow.
chromium: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,docs,web]" playwright
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		command -v chrome || (apt-get update -qq && apt-get install -qq --yes chromium) || \
		{ echo "make: no Chromium here, and apt brings none (root?): install it" >&2; exit 1; }

# The site and the page of `contar serve` in Chromium
browser: chromium docs
	$(BIN)/python -m pytest tests/docs/test_site_page.py tests/recipes/test_serve_page.py -p no:benchmark

# The Ray engine, on a cluster of two workers that the tests start here; training on two and four
# processes, beside one, killed, and as the page says
scale: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,ray]"
	$(BIN)/python -m pytest -p no:benchmark --scale -m scale tests/evaluation tests/preparation tests/recipes tests/training

# What equals official implementations, with their recorded outputs or with themselves
parity: $(STAMP)
	$(BIN)/python -m pytest $(TESTS) tests/parity

# Small changes of the code that no test notices, of a sample: python tests/mutants.py --help
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' --benchmark-only --benchmark-columns=median,iqr,rounds --results benchmarks/results

# The site, in site/: open site/index.html. Once its packages are there, it needs no network.
docs: .venv/.docs
	$(BIN)/python tests/docs/build_site.py

.venv/.docs: EXTRAS := docs
.venv/.docs: pyproject.toml
	$(packages)
	touch $@
