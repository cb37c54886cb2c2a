# Two images from one file: `worker` drains a run, `producer` fills, launches and watches one. To ship your own
# handlers, build FROM either and copy them to /work, or mount them there; `pip` installs into the image's venv.

FROM python:3.11.15-slim-bookworm AS python
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

FROM python AS wheel
WORKDIR /src
COPY requirements/build.txt ./
RUN pip install --no-cache-dir --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY piecework/ piecework/
COPY producer/ producer/
COPY worker/ worker/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM python AS worker-venv
RUN python -m venv /opt/venv
COPY requirements/worker.txt /tmp/
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/worker.txt
COPY --from=wheel /dist/ /dist/
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python AS producer-venv
RUN python -m venv /opt/venv
COPY requirements/producer.txt /tmp/
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/producer.txt
COPY --from=wheel /dist/ /dist/
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python AS runtime
ARG VERSION=dev
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.vendor="piecework contributors"
# Nothing is written outside /tmp, so that the root file system can be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/work \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /work

FROM runtime AS worker
LABEL org.opencontainers.image.title="piecework-worker" \
      org.opencontainers.image.description="Drains one piecework run and exits with a code that says how it ended"
COPY --from=worker-venv /opt/venv /opt/venv
USER 65532:65532
ENTRYPOINT ["piecework-worker"]

FROM runtime AS producer
LABEL org.opencontainers.image.title="piecework-producer" \
      org.opencontainers.image.description="Fills piecework runs, launches their workers and watches them"
COPY --from=producer-venv /opt/venv /opt/venv
USER 65532:65532
ENTRYPOINT ["piecework"]
