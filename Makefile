# Everything below needs only Python >= 3.10 with venv and pip, and make. Another interpreter: make PYTHON=python3.12 ...
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Bytecode is kept whatever the environment says: most of collecting tests is rewriting their assertions, once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test long cpus oldest swapped lint docs site-test bench clean

demo: $(VENV)/.installed-plot
	$(PY) examples/demo.py

test: lint
	$(PY) -m pytest -n auto --dist worksteal -m "not slow"

long: $(VENV)/.installed-test,dev
	$(PY) -m pytest -n auto --dist worksteal -m slow

cpus: $(VENV)/.installed-test,dev
	tests/other_processors.sh $(PY)

oldest: $(VENV)/.installed-test,dev
	tests/oldest_versions.sh $(PY)

swapped: $(VENV)/.installed-test
	$(PY) tests/swapped/run.py

lint: $(VENV)/.installed-test,dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy --strict --follow-imports=silent tests/typed_use.py
	$(PY) docs/check_words.py
	$(PY) -m codespell_lib *.md docs examples benchmarks sklearn_icon tests

docs: $(VENV)/.installed-docs
	@rm -rf docs/_build docs/generated
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

site-test: docs $(VENV)/.installed-test,dev
	$(PY) -m pytest -rs tests/test_site.py

bench: $(VENV)/.installed-plot
	$(PY) benchmarks/import_time.py
	$(PY) benchmarks/first_fit.py
	$(PY) benchmarks/digits.py

clean:
	rm -rf $(VENV) build *.egg-info demo_output docs/_build docs/generated docs/methods docs/auto_examples docs/benchmarks.rst \
	    .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(PY):
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras; a second call installs nothing until these files change.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(PY)
	$(INSTALL) -e ".[$*]"
	@touch $@
