# karat in a container: a small image for the CPU, and two for NVIDIA GPUs.
#
#   docker build -t karat .
#   docker build -t karat-cuda --target cuda .
#   docker build -t karat-tensorrt --target tensorrt .
#   docker run -p 8080:8080 -v "$PWD/models:/models:ro" karat
#   docker run -p 8080:8080 --gpus all -v "$PWD/models:/models" karat-cuda
#
# A GPU's calibration and TensorRT's engines are kept beside the graphs: without a writable /models they are made anew
# at each start.

FROM rust:1-bookworm AS build
# libjpeg's assembler: without nasm it is built of C, which decodes the same pixels more slowly.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y nasm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY crates crates
COPY src src
# The test and benchmark targets are named in Cargo.toml; the build of the program needs only that they exist.
COPY tests tests
COPY loadtest loadtest
RUN cargo build --release --locked --bin karat

FROM python:3.11-slim-bookworm AS onnxruntime
WORKDIR /src
COPY python/tools tools
RUN python3 -m tools.onnxruntime_library --output /onnxruntime/libonnxruntime.so

FROM python:3.11-slim-bookworm AS onnxruntime-cuda
WORKDIR /src
COPY python/tools tools
RUN python3 -m tools.onnxruntime_library --cuda --output /onnxruntime/libonnxruntime.so

FROM nvidia/cuda:13.0.0-cudnn-runtime-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y curl \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/karat /usr/local/bin/karat
COPY --from=onnxruntime-cuda /onnxruntime /usr/local/lib/onnxruntime
ENV KARAT_ONNXRUNTIME=/usr/local/lib/onnxruntime/libonnxruntime.so KARAT_MODELS=/models KARAT_LISTEN=0.0.0.0:8080
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=300s CMD ["curl", "-fsS", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["karat"]
CMD ["serve"]

FROM cuda AS tensorrt
USER 0:0
# ONNX Runtime 1.31 wants TensorRT 10; NVIDIA's image names its package repository, which has 11 as well.
RUN apt-get update \
 && apt-get install --no-install-recommends -y "libnvinfer10=10.*+cuda13.0" "libnvonnxparsers10=10.*+cuda13.0" \
 && rm -rf /var/lib/apt/lists/*
USER 65532:65532

FROM debian:bookworm-slim AS cpu
# hadolint ignore=DL3008
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
