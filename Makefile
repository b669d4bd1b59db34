.PHONY: setup demo test lint bench image

# The image: which program builds it (docker, podman or buildah), its name, and more options for that program.
ENGINE ?= docker
IMAGE ?= graft:$(VERSION)
BUILD_FLAGS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

setup:
	@scripts/setup

demo: setup
	@.venv/bin/graft demo --output graft-demo

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

test: lint
	@.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

bench: setup
	@.venv/bin/python benchmarks/bundled_backbone.py
	@.venv/bin/python benchmarks/frozen_phase.py
	@.venv/bin/python benchmarks/whole_run.py
	@.venv/bin/python benchmarks/training.py
	@.venv/bin/python benchmarks/gate.py
	@.venv/bin/python benchmarks/serving.py
	@.venv/bin/python benchmarks/formats.py

image:
	@$(ENGINE) build --tag $(IMAGE) --label org.opencontainers.image.version=$(VERSION) \
	    --label org.opencontainers.image.revision=$$(git describe --always --dirty --abbrev=40 --exclude '*') \
	    --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BUILD_FLAGS) .
