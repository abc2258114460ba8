#!/bin/sh
# Makes a virtual environment of what uv.lock pins: install.sh ENVIRONMENT PYTHON [groups, as `uv export` takes them]
#
# `uv sync` takes each file from where it lay when the lock was written, or locks anew. Exported, versions and hashes
# hold, and the files come from the index or mirror that this machine is set up with.
set -eu
environment=$1 python=$2
shift 2
cd "$(dirname "$0")/.."
uv=.karat/uv/bin/uv

# What pip is told of index and certificates holds for uv too.
index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
if [ -n "$index" ]; then
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
fi
if [ -n "${PIP_CERT:-}" ]; then
    export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
fi

pinned=$environment/pinned.txt
"$uv" venv --quiet --allow-existing --no-project --no-python-downloads --python "$python" "$environment"
"$uv" export --quiet --project python --frozen --no-emit-workspace "$@" --output-file "$pinned" >/dev/null
"$uv" pip sync --quiet --python "$environment" --require-hashes "$pinned"
"$uv" pip install --quiet --python "$environment" --no-deps --editable python/client --editable python
