# The relay: `docker build -t streaming-encodec .`, then `docker run -p 8765:8765 streaming-encodec serve --help`.
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[cluster]"

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "streaming-encodec[cluster]" \
    && useradd --system --no-create-home relay
USER relay
EXPOSE 8765
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=2)"]
ENTRYPOINT ["streaming-encodec"]
CMD ["serve", "--host", "0.0.0.0"]
