# The service on python:3.13-slim; also runs the migrations (`python -m course_service migrate`).

FROM python:3.13-slim AS builder
RUN python3 -m venv /opt/venv
COPY requirements.lock .
RUN /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

FROM python:3.13-slim
# Nothing is written at run time, so the root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Each thread of many would keep memory of its own that it has freed.
ENV MALLOC_ARENA_MAX=2
# In a container, loopback is reached by nobody.
ENV COURSE_GRPC_ADDRESS=0.0.0.0:50051 COURSE_HTTP_ADDRESS=0.0.0.0:8080 COURSE_HEALTH_ADDRESS=0.0.0.0:50052
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY migrations ./migrations
COPY generated/course ./course
COPY course_service ./course_service
RUN python -m compileall -q course course_service migrations
USER 10001:10001
EXPOSE 50051 8080 50052
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "course_service", "health"]
# As a list, so that the service is process 1 and gets SIGTERM itself.
CMD ["python", "-m", "course_service"]
