"""What must hold before a service starts: every file, folder, library and address that its settings name.

It is checked where the service is configured, before there are workers, and before `hone serve` starts a server:
BentoML would start a worker that fails on any of it over and over. A worker that comes back later checks again; while
it can't start, the others go on with what they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hone.certificates import check_pair
from hone.errors import HoneError

from .access.exposure import check_exposure, grpc_host, option
from .http.ports import require_free_port
from .settings import Settings


def check_start(settings: Settings, arguments: Sequence[str]) -> None:
    """Refuse to start on what can't work.

    Args:
        settings: of the service.
        arguments: the command line of the server or of its worker; `bentoml build`, which only packs, is let pass.

    Raises:
        HoneError: naming the setting, file or folder that is wrong.
    """
    if list(arguments[1:2]) == ["build"]:
        return
    check_exposure(settings, arguments)
    _check_certificate(arguments)
    if settings.grpc_port:
        _require("grpc", "HONE_GRPC_PORT needs grpcio")
        if not option(arguments, "--fd"):  # the workers of a server share the port
            require_free_port(grpc_host(settings, arguments), settings.grpc_port, "HONE_GRPC_PORT")
    _check_parts(settings)


def _check_parts(settings: Settings) -> None:
    """Check what the parts that are switched on need, each by its own code."""
    if settings.api_keys:
        from .access.api_keys import read_keys

        read_keys(Path(settings.api_keys))
    if settings.jwt_jwks:
        from .access.tokens import check_jwks

        check_jwks(settings.jwt_jwks)
    if settings.audit_log:
        from hone.audit import open_log

        open_log(settings.audit_log)
    if settings.redis_url:
        from .cache.redis_client import connect

        connect(settings.redis_url, 1.0)
    if settings.record_dir:
        from .observe.record_table import parse_hidden
        from .observe.recording import check_folder

        parse_hidden(settings.record_exclude)
        check_folder(Path(settings.record_dir))
    if settings.drift_dir:
        from hone.sketches.folder import check_folder as check_sketches

        _require("datasketches", "HONE_DRIFT_DIR needs datasketches")
        check_sketches(Path(settings.drift_dir))
    if settings.record_key_file:
        from hone.traffic.keys import read_key

        read_key(settings.record_key_file)
    if settings.feedback_dir:
        from .feedback.collector import check_folder as check_feedback

        check_feedback(Path(settings.feedback_dir))
    if settings.jobs_dir:
        from hone.files import check_writable

        check_writable(Path(settings.jobs_dir), "jobs (HONE_JOBS_DIR)")
    if settings.trace_sample:
        _require("opentelemetry.exporter.otlp.proto.http", "HONE_TRACE_SAMPLE needs the OTLP exporter")


def _require(module: str, problem: str) -> None:
    try:
        found = find_spec(module)
    except ImportError:  # a package above it is missing
        found = None
    if found is None:
        raise HoneError(f"{problem}; pip install 'hone[ops]'")


def _check_certificate(arguments: Sequence[str]) -> None:
    """Check the files of TLS, which BentoML and gRPC read in each worker only."""
    names = ("--ssl-certfile", "--ssl-keyfile", "--ssl-keyfile-password")
    certificate, key, password = (option(arguments, name) for name in names)
    check_pair(certificate, key, password)
