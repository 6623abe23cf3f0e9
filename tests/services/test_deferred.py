"""What waits until it is used, checked against the installed BentoML, each in a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hone.services.deferred import DEFERRED, real
from tests.servers import ROOT, put

DEFERRING = "from hone.services.deferred import defer; defer()\n"


def printed(code: str, home: Path) -> list[str]:
    variables = {**os.environ, "BENTOML_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("module", DEFERRED)
def test_what_is_deferred_is_there(module: str) -> None:
    found = real(importlib.import_module(module))
    assert [name for name in DEFERRED[module] if not hasattr(found, name)] == []


def test_a_service_is_made_without_what_is_deferred(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1")
    looked_for = "aiohttp", "trio", "httpx_ws", "circus.arbiter", "rich.console", "wsproto.connection"
    code = (
        f"{DEFERRING}import sys, _bentoml_impl.worker.service\nfrom services.digits import Digits\nDigits.to_asgi()\n"
        f"print([name for name in {looked_for} if name in sys.modules])"
    )
    assert printed(code, tmp_path) == ["[]"]


def test_what_is_deferred_becomes_real_when_it_is_used(tmp_path: Path) -> None:
    code = (
        f"{DEFERRING}import sys, bentoml.models\n"
        "from bentoml._internal.cloud.client import RestApiClient\n"
        "print('httpx_ws' in sys.modules, isinstance(1, RestApiClient))\n"
        "print(type(RestApiClient('http://localhost', 'token')).__name__, 'httpx_ws' in sys.modules)\n"
        "from bentoml._internal.cloud.client import RestApiClient as real\n"
        "print(isinstance(real('http://localhost', 'token'), RestApiClient), real.__module__)\n"
        "import bentoml.cloud, bentoml._internal.cloud as cloud\n"
        "print(bentoml.cloud.YataiClient.__name__, cloud.BentoCloudClient.for_context.__qualname__)"
    )
    assert printed(code, tmp_path) == [
        "False False",
        "RestApiClient True",
        "True bentoml._internal.cloud.client",
        "YataiClient BentoCloudClient.for_context",
    ]
