# Every target makes a .venv when there is none. PYTHON may name another interpreter (>= 3.11).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TESTS := -n 2 --dist loadfile --no-loadscope-reorder -p no:benchmark

.PHONY: install demo test test-oldest mutants check bench docs

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/contar demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest $(TESTS) --cov --cov-report=term:skip-covered --cov-fail-under=90

# The tests with the lowest versions that pyproject.toml allows, in an environment of their own.
test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest $(TESTS)

.venv-oldest/.installed: pyproject.toml tests/oldest.py
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e ".[dev]"
	touch $@

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

# The site, in site/: open site/index.html. Needs no network.
docs: .venv/.docs
	$(BIN)/python tests/docs/build_site.py

.venv/.docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@
