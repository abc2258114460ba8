# karat in a container: a small image for the CPU, and one for NVIDIA GPUs.
#
#   docker build -t karat .
#   docker build -t karat-cuda --target cuda .
#   docker run -p 8080:8080 -v "$PWD/models:/models:ro" karat

FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
# The test and benchmark targets are named in Cargo.toml; the build of the program needs only that they exist.
COPY tests tests
COPY loadtest loadtest
RUN cargo build --release --locked --bin karat

FROM python:3.11-slim-bookworm AS onnxruntime
WORKDIR /src
COPY models/tools models/tools
RUN python3 -m models.tools.onnxruntime_library --output /onnxruntime/libonnxruntime.so

FROM python:3.11-slim-bookworm AS onnxruntime-cuda
RUN pip download --no-deps --only-binary=:all: -d /wheel onnxruntime-gpu==1.31.1 \
 && python3 -m zipfile -e /wheel/onnxruntime_gpu-*.whl /wheel/x \
 && mkdir /onnxruntime \
 && cp /wheel/x/onnxruntime/capi/libonnxruntime.so.1.31.1 /onnxruntime/libonnxruntime.so \
 && cp /wheel/x/onnxruntime/capi/libonnxruntime_providers_*.so /onnxruntime/

FROM nvidia/cuda:13.0.0-cudnn-runtime-ubuntu24.04 AS cuda
COPY --from=build /src/target/release/karat /usr/local/bin/karat
COPY --from=onnxruntime-cuda /onnxruntime /usr/local/lib/onnxruntime
ENV KARAT_ONNXRUNTIME=/usr/local/lib/onnxruntime/libonnxruntime.so KARAT_MODELS=/models KARAT_LISTEN=0.0.0.0:8080
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["karat"]
CMD ["serve"]

FROM debian:bookworm-slim AS cpu
RUN apt-get update \
 && apt-get install --no-install-recommends -y libstdc++6 curl \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/karat /usr/local/bin/karat
COPY --from=onnxruntime /onnxruntime /usr/local/lib/onnxruntime
ENV KARAT_ONNXRUNTIME=/usr/local/lib/onnxruntime/libonnxruntime.so KARAT_MODELS=/models KARAT_LISTEN=0.0.0.0:8080
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=60s CMD ["curl", "-fsS", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["karat"]
CMD ["serve"]
