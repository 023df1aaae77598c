# The server of `tfmodels serve` on a CPU. Models come from a folder outside:
#     docker build -t tfmodels .
#     docker run -p 8000:8000 -v $PWD/models:/models:ro tfmodels /models/my-model
# For a GPU: docker build --build-arg EXTRAS=serve,structured,gpu -t tfmodels . and docker run --gpus all ...
FROM python:3.12-slim AS build
ARG EXTRAS=serve,structured
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY tfmodels tfmodels
COPY saved_models saved_models
RUN pip install ".[${EXTRAS}]"

FROM python:3.12-slim
COPY --from=build /venv /venv
# A user without rights; what the hub sends is kept in its home.
RUN useradd --create-home server
USER server
WORKDIR /home/server
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/home/server/hub
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tfmodels", "serve", "--host", "0.0.0.0"]
CMD ["stories260K"]
