# glibc 2.41, which the wheels of TFX 1.21 need (2.39 or newer).
FROM python:3.11-slim-trixie

WORKDIR /opt/graft
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY components components
COPY pipeline pipeline
COPY trainer trainer
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

RUN useradd --create-home graft
USER graft
WORKDIR /home/graft
ENTRYPOINT ["graft"]
