# A robot's computer: no torch, no platform. Add your robot's driver and name its factory.
#   docker build -f infra/docker/workcell.Dockerfile -t actwright-workcell:0.1.0 .
#   docker run actwright-workcell:0.1.0 --robot my_robot:make_robot --task ... --url ws://.../v1/session --cell cell-0 --result /tmp/result.json
FROM python:3.11-slim-bookworm

WORKDIR /opt/actwright
COPY requirements.lock ./
RUN pip install --no-cache-dir -c requirements.lock numpy msgpack msgspec websockets pyarrow av pillow
COPY model_core/__init__.py model_core/__init__.py
COPY model_core/spec model_core/spec
COPY serving/__init__.py serving/contract_file.py serving/lifeline.py serving/
COPY serving/workcell serving/workcell
RUN useradd --uid 10001 --create-home actwright

ENV PYTHONPATH=/opt/actwright PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["python", "-m", "serving.workcell"]
CMD ["--help"]
