# Needs nothing but make and Python 3.10 to 3.13.
#   make demo   a virtual environment, the packages, a network trained on drawn scenes, its score and pictures
#   make test   the linter and every test that needs neither a GPU nor more than a few seconds
#   make slow   the long tests (overfitting real photos, ...)

PYTHON ?= python3
VENV ?= .venv
# The versions that the tests are known to pass with. Others: make TORCH="torch==2.12.1 torchvision"
TORCH ?= torch==2.13.0 torchvision==0.28.0
BIN = $(VENV)/bin

.PHONY: demo test slow install lint clean

demo: install
	$(BIN)/python train_yolact.py --config yolact_shapes --save_folder weights/demo --log_folder logs/demo --validation_epoch 5 --num_workers 1

# One thread: small networks gain nothing from more, and other work on the machine costs less.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

slow: install
	$(BIN)/python -m pytest -q -m slow

lint: install
	$(BIN)/ruff check .

install: $(VENV)/.installed

# Torch first and by itself: an unpinned requirement would fetch the newest build instead of one at hand.
$(VENV)/.installed: requirements.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
