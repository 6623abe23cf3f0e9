"""One registry for all tests of signatures, and a pair of keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.k8s.tools.registry.keys import MAKE
from tests.containers import registry
from tests.k8s.registry.signing import openssl


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    openssl(folder, *MAKE.split()[1:])
    openssl(folder, "pkey", "-in", "cosign.key", "-pubout", "-out", "cosign.pub")
    return folder


@pytest.fixture(scope="package")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
