# pmrl on the CPU:
#   docker build -t pmrl . && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" pmrl inspect features/*
# TORCH_INDEX is the wheel index of PyTorch's CPU builds, as its installation page gives it; without it pip takes the
# default build, which is several GB larger.
FROM python:3.11-slim
ARG TORCH_INDEX=
COPY constraints.txt /src/
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    torch==2.13.0 --constraint /src/constraints.txt
COPY pyproject.toml README.md LICENSE /src/
COPY pmrl_cli /src/pmrl_cli
RUN pip install --no-cache-dir '/src[report]' --constraint /src/constraints.txt && rm -r /src
WORKDIR /data
ENTRYPOINT ["pmrl"]
