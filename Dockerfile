# The service in a slim image: weights inside, no network needed to run, not root, root file system read-only.
# CUDA hosts: as is. Others: --build-arg TORCH="--index-url https://download.pytorch.org/whl/cpu torch==2.13.0".

FROM python:3.11-slim AS build
ARG TORCH="--require-hashes -r /src/requirements-cuda.txt"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv && python -m venv /opt/tools
RUN /opt/tools/bin/pip install cyclonedx-bom==7.5.0
COPY requirements.txt requirements-cuda.txt /src/
RUN /opt/venv/bin/pip install --no-deps ${TORCH} \
 && /opt/venv/bin/pip install --no-deps --require-hashes -r /src/requirements.txt
COPY scripts/repair_torchaudio.py scripts/slim.py /src/
RUN /opt/venv/bin/python /src/repair_torchaudio.py \
 && /opt/venv/bin/pip uninstall --yes pip setuptools \
 && /opt/venv/bin/python /src/slim.py \
 && /opt/tools/bin/cyclonedx-py environment --output-reproducible -o /opt/venv/sbom.json /opt/venv/bin/python

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lipsync && install -d -o lipsync -m 700 /data \
 && printf '#!/opt/venv/bin/python\nif __name__ == "__main__":\n    from app.cli import main\n    main()\n' > /usr/local/bin/lipsync \
 && chmod +x /usr/local/bin/lipsync
WORKDIR /srv
COPY weights weights
COPY model model
COPY app app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp \
    HOST=0.0.0.0 PORT=8000 LIPSYNC_DATA_DIR=/data
VOLUME /data
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
CMD ["python", "-m", "app"]
