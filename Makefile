.PHONY: setup demo test lint bench

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
