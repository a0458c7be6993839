# The leaderboard, without torch: docs/hosting.md.
#   docker build -t xlt-bench-board . && docker run -p 8501:8501 -e SUBMISSIONS=URL xlt-bench-board
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY xlt_bench xlt_bench
COPY tasks tasks
COPY leaderboard leaderboard
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12-slim
COPY constraints.txt /tmp/
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /dist/*.whl)[leaderboard]" \
    && useradd --create-home --uid 1000 board
USER board
WORKDIR /home/board
# A URL of a zip or tar archive of submissions, or a folder that is mounted.
ENV SUBMISSIONS=/submissions \
    PORT=8501 \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0
EXPOSE 8501
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://localhost:{os.environ[\"PORT\"]}/_stcore/health', timeout=10)"]
CMD ["sh", "-c", "exec xlt-bench leaderboard serve --submissions \"$SUBMISSIONS\" --port \"$PORT\""]
