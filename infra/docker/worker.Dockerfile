# One image for the platform's own servers, the flows and every training pod.
#   docker build -f infra/docker/worker.Dockerfile -t actwright-worker:0.1.0 .
# The lock's torch is whatever build your package index serves: point PIP_INDEX_URL at one with CUDA for GPUs.
FROM python:3.11-slim-bookworm

# osmesa: off-screen rendering; git: the code's commit in a model's lineage; gcc: deepspeed's optional kernels
RUN apt-get update \
    && apt-get install -y --no-install-recommends libosmesa6 libgl1 git gcc g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/actwright
COPY requirements.lock ./
# deepspeed asks the installed torch for its version while it is built, so torch comes first and without isolation
RUN pip install --no-cache-dir $(grep -E '^(torch|numpy|ninja|packaging|psutil|py-cpuinfo|setuptools)==' requirements.lock) wheel \
    && DS_BUILD_OPS=0 pip install --no-cache-dir --no-build-isolation $(grep -E '^deepspeed==' requirements.lock) \
    && pip install --no-cache-dir -r requirements.lock \
    # on a cluster: MLflow on PostgreSQL, and flows as Jobs (the extra `kubernetes`)
    && pip install --no-cache-dir -c requirements.lock psycopg2-binary==2.9.13 prefect-kubernetes==0.8.0

COPY pyproject.toml README.md LICENSE dvc.yaml ./
COPY model_core model_core
COPY components components
COPY flows flows
COPY serving serving
COPY infra infra
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --uid 10001 --create-home actwright

ENV MUJOCO_GL=osmesa DO_NOT_TRACK=1 BENTOML_DO_NOT_TRACK=True PREFECT_SERVER_ANALYTICS_ENABLED=false GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false DVC_NO_ANALYTICS=true HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /workspace
CMD ["actwright", "--help"]
