# The policy service: code only. Weights, contract and probes (a bundle) are mounted and named by ACTWRIGHT_BUNDLE.
#   docker build -f infra/docker/serve.Dockerfile -t actwright-serve:0.1.0 .
# It binds to every interface, so it starts with tokens only: mount a table and name it in ACTWRIGHT_TOKENS_FILE (docs/serving.md).
FROM python:3.11-slim-bookworm

WORKDIR /opt/actwright
COPY requirements.lock ./
# the libraries of a Bento (components/release/package.py), in the versions of the lock
RUN pip install --no-cache-dir -c requirements.lock \
    bentoml cryptography msgpack msgspec numpy pillow prometheus_client safetensors starlette tiktoken tokenizers torch uvicorn websockets
COPY model_core model_core
COPY serving serving
RUN useradd --uid 10001 --create-home actwright

ENV PYTHONPATH=/opt/actwright BENTOML_DO_NOT_TRACK=True DO_NOT_TRACK=1 PYTHONUNBUFFERED=1 ACTWRIGHT_BUNDLE=/bundle
USER 10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/readyz', timeout=2)"]
CMD ["bentoml", "serve", "serving.gateway.service:PolicyService", "--host", "0.0.0.0", "--port", "3000"]
