# Labelling on a Ray cluster: the worker's image, with Ray and the parts of its dashboard by which KubeRay submits a job.
#   docker build -f infra/docker/ray.Dockerfile -t actwright-ray:0.1.0 .
FROM actwright-worker:0.1.0

USER root
RUN pip install --no-cache-dir -c /opt/actwright/requirements.lock 'ray[data,default]==2.60.0'
ENV RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
USER 10001
