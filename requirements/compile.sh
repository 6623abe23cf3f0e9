#!/usr/bin/env bash
# Rewrite constraints.txt from pyproject.toml: the exact versions that a set-up installs.
# `+cpu` is dropped so that the pin also matches the torch build of other platforms.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=(--extra torch --extra tensorflow --extra trees --extra mlx --extra openvino --extra search --extra bench --extra ops --extra demo --extra dev)
{
  echo "# Exact versions of a set-up. Made by requirements/compile.sh; do not edit by hand."
  UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" "${UV:-.venv/bin/uv}" pip compile --quiet --upgrade \
    --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
    --overrides requirements/cpu.txt "${extras[@]}" pyproject.toml | sed 's/+cpu$//'
} > requirements/constraints.txt.new
mv requirements/constraints.txt.new requirements/constraints.txt
