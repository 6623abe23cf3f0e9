"""The seam to BentoML: what it relies on, checked against the installed version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hone.errors import HoneError
from hone.services.routes import server
from tests.servers import put

ROOT = Path(__file__).parents[2]


def test_installed_bentoml_is_the_pinned_one() -> None:
    server.check_version()


def test_another_version_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "version", lambda _: "9.9")
    with pytest.raises(HoneError, match=r"bentoml 9\.9 is installed.*install bentoml=="):
        server.check_version()


def test_bentomls_timers_are_left_out(tmp_path: Path) -> None:
    """Loudly, when BentoML moves them: a request for a probe would leave one behind for a minute."""
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1")
    code = (
        "from services.digits import Digits\nfrom _bentoml_sdk.service.factory import Service\n"
        "for made in (Service.to_asgi(Digits), Digits.to_asgi()):\n"
        "    print(sorted(middleware.cls.__name__ for middleware in made.user_middleware))"
    )
    variables = {**os.environ, "BENTOML_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=variables, check=True
    )
    theirs, ours = done.stdout.splitlines()
    assert "TimeoutMiddleware" in theirs
    assert ours == theirs.replace(", 'TimeoutMiddleware'", "").replace("'TimeoutMiddleware', ", "")


def test_bento_installs_what_a_set_up_installs() -> None:
    pins = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    wanted = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    assert set(wanted) <= set(pins)
    assert not [line for line in wanted if line.startswith(("torch", "tensorflow", "onnx=="))]


def test_serving_imports_no_training_framework() -> None:
    code = (
        "import sys; import hone.services.base, hone.services.launch, hone.runtimes; hone.runtimes.all_runtimes(); "
        "print([name for name in ('torch', 'tensorflow', 'keras', 'onnx', 'sklearn', 'xgboost', 'matplotlib', "
        "'converters') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_serving_needs_nothing_that_is_only_used_when_configured(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "for name in ('grpc', 'google.protobuf', 'jwt', 'redis', 'pyarrow', 'zstandard', 'datasketches',\n"
        "             'opentelemetry.exporter'):\n"
        "    sys.modules[name] = None\n"
        "import hone.services.base, hone.services.launch, hone.services.access.gate\n"
        "import hone.services.cache.predictions, hone.services.observe.recording, hone.services.observe.shadow\n"
        "import hone.services.observe.tracing, hone.services.protocols.arrow, hone.services.grpc.server\n"
        "from hone.errors import HoneError\n"
        "from hone.services.assembly import build_edge\n"
        "from hone.services.settings import Settings\n"
        "for wanted in ({'trace_sample': 1.0}, {'record_dir': 'x'}, {'drift_dir': 'x'},\n"
        "               {'cache_mb': 1.0, 'redis_url': 'redis://x'},\n"
        "               {'jwt_jwks': 'x', 'jwt_issuer': 'x', 'jwt_audience': 'x'}):\n"
        "    try:\n"
        "        build_edge(Settings(**wanted), pathlib.Path(sys.argv[1]))\n"
        "    except HoneError as error:\n"
        "        print('[ops]' in str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["True"] * 5
