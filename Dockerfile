# One image for every part: `gql-jobs api`, `gql-jobs worker`, `gql-jobs nats`, the mailbox.
FROM node:24-slim AS pages
WORKDIR /src
COPY frontend/graphiql/package.json frontend/graphiql/package-lock.json frontend/graphiql/.npmrc frontend/graphiql/
RUN cd frontend/graphiql && npm ci
COPY dashboard/package.json dashboard/package-lock.json dashboard/.npmrc dashboard/
RUN cd dashboard && npm ci
COPY frontend frontend
COPY dashboard dashboard
COPY tests/queries tests/queries
COPY schema.graphql ./
RUN cd frontend/graphiql && node build.mjs
RUN cd dashboard && npm run build

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gql_jobs gql_jobs
COPY gql_jobs_pytest gql_jobs_pytest
COPY workers workers
COPY --from=pages /src/gql_jobs/web/static gql_jobs/web/static
RUN python -m venv /opt/gql-jobs \
 && /opt/gql-jobs/bin/pip install --no-cache-dir --constraint constraints.txt '.[all]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home gql-jobs
COPY --from=build /opt/gql-jobs /opt/gql-jobs
ENV PATH=/opt/gql-jobs/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GQL_JOBS_DATA_DIR=/data
USER gql-jobs
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["gql-jobs"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
