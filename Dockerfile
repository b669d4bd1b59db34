# One image, three uses: the command `graft`, the steps of a pipeline on Kubeflow Pipelines and Vertex AI, and Beam's
# workers on Dataflow, Flink and Spark. docs/image.md says how to use it, and what was proved of it.

# Beam's boot program, of the version in requirements.lock.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

# ---- what is installed: a tree for each layer, and nothing else of these stages gets into the image -----------------

# With a C++ compiler: pyfarmhash has no wheel.
FROM python:3.11-trixie AS packages
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# One date for every file (1980, the first that a wheel can hold), so that the same packages make the same layer.
ENV SOURCE_DATE_EPOCH=315532800 UV_NO_CACHE=1 UV_NO_PROGRESS=1 UV_LINK_MODE=copy UV_PYTHON=/usr/local/bin/python3.11
# What is compiled from C++ would hold, for debuggers, the name of a temporary folder.
ENV LDFLAGS=-Wl,--strip-debug,--build-id=none
ENV PACKAGES=/packages/usr/local/lib/python3.11/site-packages
WORKDIR /src
COPY scripts/bootstrap.lock scripts/
RUN pip install --no-cache-dir --require-hashes -r scripts/bootstrap.lock
COPY requirements.lock pyproject.toml ./
COPY scripts/dev_packages scripts/
# Without TensorFlow's headers, which are for building operations. Compiled here, as no user of the image can write
# beside the sources, and not by date, which here means nothing; -f, as what has run just now was compiled by date.
RUN uv pip install --prefix /packages/usr/local \
      --require-hashes --build-constraints requirements.lock -r requirements.lock \
    && uv pip uninstall --prefix /packages/usr/local $(PYTHONPATH=$PACKAGES python scripts/dev_packages $PACKAGES) \
    && rm -r $PACKAGES/tensorflow/include /packages/usr/local/.lock \
    && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s /packages -p / /packages \
    && find /packages -exec touch -hd @$SOURCE_DATE_EPOCH {} +

FROM packages AS graft
COPY --from=beam /opt/apache/beam /boot/opt/apache/beam
RUN find /boot -exec touch -hd @$SOURCE_DATE_EPOCH {} +
COPY pyproject.toml setup.py README.md LICENSE ./
COPY components components
COPY pipeline pipeline
COPY trainer trainer
COPY scripts/image_entrypoint scripts/
RUN PYTHONPATH=$PACKAGES pip install --prefix /graft/usr/local \
      --no-cache-dir --no-deps --no-build-isolation --no-compile . \
    && install scripts/image_entrypoint /graft/usr/local/bin/graft-image \
    && python -m compileall -q -f --invalidation-mode unchecked-hash -s /graft -p / /graft \
    && find /graft -exec touch -hd @$SOURCE_DATE_EPOCH {} +

# ---- the image ------------------------------------------------------------------------------------------------------

# glibc 2.41; the wheels of TFX 1.21 need 2.39 or newer.
FROM python:3.11-slim-trixie
# A home that every user can write, as clusters run images under user ids of their own; setuptools and wheel come from
# the lock; this base has its standard library uncompiled.
RUN touch -d '1 second ago' /home/.before \
    && echo 'graft:x:1000:1000::/home/graft:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'graft:x:1000:' >> /etc/group \
    && mkdir -m 1777 /home/graft \
    && pip uninstall --yes --quiet --root-user-action ignore setuptools wheel \
    && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3.11 \
    && find /usr/local /home /etc/passwd /etc/group -newer /home/.before -exec touch -hd @315532800 {} + \
    && rm /home/.before && touch -d @315532800 /home /etc /tmp
COPY --from=graft /boot /
COPY --from=packages /packages /
COPY --from=graft /graft /

LABEL org.opencontainers.image.title="Graft" \
      org.opencontainers.image.description="From a directory of labelled images to a gated, published, retrainable classifier" \
      org.opencontainers.image.licenses="Apache-2.0"
# USER for who runs under an id without a name. Beam's workers need no environment of their own: all is installed.
ENV HOME=/home/graft USER=graft PYTHONUNBUFFERED=1 RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
WORKDIR /home/graft
# By number, which Kubernetes' runAsNonRoot asks for.
USER 1000:1000
ENTRYPOINT ["graft-image"]
