# The service in a slim image: weights inside, no network needed to run, not root.
# CUDA hosts: as is (the registry's torch is a CUDA build). CPU only: --build-arg TORCH_INDEX=<index of CPU builds>.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
COPY requirements.txt /src/
RUN pip install --no-deps -r /src/requirements.txt
COPY scripts /src/scripts
RUN python /src/scripts/repair_torchaudio.py \
 && pip uninstall --yes pip \
 && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv
COPY model model
COPY app app
COPY weights weights
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp \
    HOST=0.0.0.0 PORT=8000 LIPSYNC_DATA_DIR=/data
RUN useradd --system --uid 10001 --no-create-home lipsync && install -d -o lipsync -m 700 /data
VOLUME /data
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
CMD ["python", "-m", "app"]
