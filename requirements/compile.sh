#!/usr/bin/env bash
# Rewrite constraints.txt from pyproject.toml: the exact versions that a set-up installs.
# `+cpu` is dropped so that the pin also matches the torch build of other platforms.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=(--extra torch --extra transformers --extra tensorflow --extra trees --extra mlx --extra openvino --extra litert --extra search --extra bench --extra steps --extra ops --extra s3 --extra deploy --extra demo --extra dev)
{
  echo "# Exact versions of a set-up. Made by requirements/compile.sh; do not edit by hand."
  UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" "${UV:-.venv/bin/uv}" pip compile --quiet --upgrade \
    --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
    --overrides requirements/cpu.txt "${extras[@]}" pyproject.toml | sed 's/+cpu$//'
} > requirements/constraints.txt.new
mv requirements/constraints.txt.new requirements/constraints.txt

# Installed code has no bentofile.yaml beside it: hone new service reads this.
"${PYTHON:-.venv/bin/python}" -c 'import yaml; print(*yaml.safe_load(open("bentofile.yaml"))["python"]["packages"], sep="\n")' \
  > k8s/image/packages.txt

# What an image installs: bentofile.yaml's packages and process 1, by hash, for every platform. uv is a tool of
# `bentoml build`, which an image doesn't run.
image() {
  local kind=$1
  shift
  {
    echo "# Packages of the $kind image. Made by requirements/compile.sh; do not edit by hand."
    { cat k8s/image/packages.txt
      echo dumb-init==1.2.5.post1
      printf '%s\n' "$@"; } > requirements/image.in
    "${UV:-.venv/bin/uv}" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate \
      --no-header --no-emit-index-url --no-emit-find-links -c requirements/constraints.txt \
      ${OVERRIDES:+--overrides $OVERRIDES} requirements/image.in
  } > "k8s/image/$kind.lock.new"
  mv "k8s/image/$kind.lock.new" "k8s/image/$kind.lock"
  rm requirements/image.in
}
# What an image gets beside, where a model in it has steps; without what tokenizers fetches files from a hub with.
{
  echo "# Packages of artifacts' steps, in images that hold such ones. Made by requirements/compile.sh; do not edit by hand."
  printf '%s\n' pillow tokenizers | "${UV:-.venv/bin/uv}" pip compile --quiet --universal --no-deps --generate-hashes \
    --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
    -c requirements/constraints.txt -
} > k8s/image/steps.lock.new
mv k8s/image/steps.lock.new k8s/image/steps.lock
image cpu
image openvino openvino
image litert ai-edge-litert
OVERRIDES=requirements/cuda.txt image cuda onnxruntime-gpu==1.31.1
OVERRIDES=requirements/cuda.txt image tensorrt onnxruntime-gpu==1.31.1 tensorrt==11.4.0.106 cuda-bindings
