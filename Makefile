# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := checkpoints/demo

.PHONY: demo test test-all test-lens4 dist release coverage check bench docs docs-code install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "grokscope needs Python 3.11 or newer; name one by `make PYTHON=python3.12 …`")'
	@echo "Installing into .venv …"
	@$(PYTHON) -m venv .venv
	@started=$$(date +%s); $(BIN)/python -m pip install --quiet --editable '.[dev,docs,ray,wandb,trackio,tensorboard,hooked]' && \
	  echo "Installed in $$(( $$(date +%s) - started )) s."
	@touch $@

demo: $(INSTALLED)
	@started=$$(date +%s); \
	if [ -f $(RUN)/config.json ]; then $(BIN)/grokscope resume $(RUN); else $(BIN)/grokscope train quick --run demo; fi && \
	$(BIN)/grokscope measure $(RUN) loss weight_norm embedding sharpness && \
	$(BIN)/grokscope report $(RUN) --open && \
	$(BIN)/python analyses/modular_circle.py $(RUN) && \
	$(BIN)/python analyses/sharpness.py $(RUN) && \
	echo "The demo took $$(( $$(date +%s) - started )) s. Open $(RUN)/report.html in a browser."

# Two processes of one thread each: torch's threads of two processes would wait for each other. The bytecode is kept,
# because the tests start hundreds of processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(INSTALLED)
	@$(PYTEST) -m "not slow"

test-all: $(INSTALLED)
	@$(PYTEST)

coverage: $(INSTALLED)
	@$(PYTEST) -m "not slow" --cov=grokscope --cov-report=term-missing:skip-covered

# The linter of the report's scripts needs Node.js, which nothing else does.
ESLINT := npx --yes eslint@9.39.5 --config .ci/eslint.config.mjs

check: $(INSTALLED)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright
	@if command -v npx >/dev/null; then $(ESLINT) grokscope/report/assets; \
	else echo "Skipped eslint: Node.js is not installed."; fi

# The tests of what TransformerLens 4 does otherwise than 3.9, which .venv has. All its other packages are shared.
LENS4 := .venv/lens4
test-lens4: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(LENS4) 'transformer-lens>=4,<5'
	@PYTHONPATH=$(CURDIR)/$(LENS4) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/model/test_bridge.py tests/interop/test_export.py

# The wheel and the sdist in dist/, checked. A version is stamped first by `make release VERSION=X.Y.Z`.
dist: $(INSTALLED)
	@rm -rf dist && $(BIN)/python -m build --outdir dist . >/dev/null && $(BIN)/twine check --strict dist/*

release: $(INSTALLED)
	@$(BIN)/python .ci/release.py "$(VERSION)" && $(MAKE) --no-print-directory dist && \
	  printf 'Upload these files with `twine upload dist/*`, or commit, tag v$(VERSION) and push the tag:\n' && ls dist/*

bench: $(INSTALLED)
	@for name in training checkpoints analysis curvature startup growth; do \
	  echo "== $$name"; $(BIN)/python tests/benchmarks/$$name.py || exit 1; \
	done

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "Open build/docs/index.html in a browser."

# Every command, block of Python and notebook of the documentation, as it stands.
docs-code: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/test_docs.py
