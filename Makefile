# Needs nothing but make and Python 3.10 to 3.13.
#   make demo   a virtual environment, the packages, a network trained on drawn scenes, its score and pictures
#   make test   the linter, the types and every test that needs neither a GPU nor minutes
#   make slow   the long tests (overfitting real photos, ...)
#   make test-faults   the long proof: kills in saves, full disks, damaged and hostile files, closed streams,
#               two runs in one folder, thousands of iterations; make test has a quick sample of each
#   make operators   parity and YOLACT++ with a torch and a torchvision that fit each other, then with our
#               own operators; make test says at its end which it had
#   make interop   files to and from the originals' own packages (MMDetection, mit-semseg, resnest) and timm
#   make pages  the tables of docs/ that are made from the code, after a flag or key has changed
#   make expected-numbers   after a change that is meant to change them: tests/scripts/expected anew

PYTHON ?= python3
VENV ?= .venv
# The versions that the tests are known to pass with. Others: make TORCH="torch==2.12.1 torchvision"
TORCH ?= torch==2.13.0 torchvision==0.28.0
BIN = $(VENV)/bin

.PHONY: demo test test-yolact test-queryinst test-others test-rooms test-faults slow operators interop pages expected-numbers install lint clean

demo: install
	$(BIN)/python train_yolact.py --config yolact_shapes --num_workers 0 --validation_epoch 5 --save_folder weights/demo --log_folder logs/demo

# One thread each: small networks gain nothing from more, and other work on the machine costs less.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

# Side by side in processes of their own: some tests take over signals and standard streams. The
# longest come first, so that both cores have work to the end.
test: lint
	$(MAKE) -j2 test-others test-rooms test-yolact test-queryinst

YOLACT = $(wildcard tests/scripts/test_train_yolact_*.py)
QUERYINST = $(wildcard tests/scripts/test_train_queryinst_*.py) tests/scripts/test_dist_train.py

# A test that waits for ever ends its part with a traceback. The longest one takes a
# minute and a half.
TIMED = $(PYTEST) -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

test-yolact: install
	$(TIMED) $(YOLACT)

test-queryinst: install
	$(TIMED) $(QUERYINST)

test-others: install
	$(TIMED) tests/scripts $(addprefix --ignore=,$(YOLACT) $(QUERYINST))

test-rooms: install
	$(TIMED) tests --ignore tests/scripts

# All tests marked `fault`, those marked `slow` too. As root some of them mount small disks and cut off the network.
test-faults: install
	$(PYTEST) -m "fault and not gpu"

slow: install
	$(BIN)/python -m pytest -q -m "slow and not fault"

pages: install
	$(BIN)/python tests/flag_tables.py
	$(BIN)/python tests/word_tables.py
	$(BIN)/python tests/command_table.py
	$(BIN)/python -m tests.mmdetection_tables

# Look at the difference in git before committing it: every number in it has to be explained.
expected-numbers: install
	$(PYTEST) --write-expected $(wildcard tests/scripts/test_train_*_numbers.py)

# Versions that fit each other, in an environment of their own: what .venv has may not, and then
# the tests that compare with torchvision skip. An interpreter that is there already:
# make operators OPERATORS_PYTHON=/path/to/python
OPERATORS_TORCH ?= torch==2.14.1 torchvision==0.29.1
OPERATORS_VENV ?= .venv-operators
OPERATORS_PYTHON ?= $(OPERATORS_VENV)/bin/python
OPERATORS_TESTS ?= tests/parity tests/unit/test_resnest_samples.py $(wildcard tests/unit/test_yolact_*.py)
OPERATORS_RUN = OMP_NUM_THREADS=1 $(OPERATORS_PYTHON) -m pytest -q $(OPERATORS_TESTS)

operators: $(if $(filter $(OPERATORS_VENV)/%,$(OPERATORS_PYTHON)),$(OPERATORS_VENV)/.installed)
	$(OPERATORS_RUN) --operators real
	$(OPERATORS_RUN) --operators own

$(OPERATORS_VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(OPERATORS_VENV)
	$(OPERATORS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(OPERATORS_TORCH) -r requirements.txt
	touch $@

# docs/interop.md. The originals' packages are no dependency: they get an environment of their own. An
# interpreter that has them: make interop INTEROP_PYTHON=/path/to/python. What is missing skips.
# Older setuptools, and their own, since three of them build by pkg_resources.
INTEROP_PACKAGES ?= mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.1.0 mit-semseg==1.0.0 resnest==0.0.5 timm
INTEROP_VENV ?= .venv-interop
INTEROP_PYTHON ?= $(INTEROP_VENV)/bin/python

interop: $(if $(filter $(INTEROP_VENV)/%,$(INTEROP_PYTHON)),$(INTEROP_VENV)/.installed)
	OMP_NUM_THREADS=1 $(INTEROP_PYTHON) -m pytest -q -m slow tests/interop

$(INTEROP_VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(INTEROP_VENV)
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(OPERATORS_TORCH) "setuptools<80" wheel -r requirements.txt
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation $(INTEROP_PACKAGES)
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(VENV)/.installed

# Torch first and by itself: an unpinned requirement would fetch the newest build instead of one at hand.
$(VENV)/.installed: requirements.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(OPERATORS_VENV) $(INTEROP_VENV) .pytest_cache .ruff_cache .mypy_cache
