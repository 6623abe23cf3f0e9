"""Run BentoML's server for a stored model: what `hone serve` and `hone bench` do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hone
from hone import store
from hone.errors import HoneError
from hone.processes import why_failed
from hone.store.trust import Policy, TrustError, refusal

from .http.ports import require_free_port
from .serve_folder import ServeFolder, serve_folder
from .settings import FILES, LAUNCHER, PREFIX, SHARED_TEMP, Settings
from .startup import check_start

SERVICE = "hone.services.model:Model"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
AGAIN_S = 3.0
"""After so long a server is interrupted again: BentoML misses a signal that comes while it restarts a worker."""


def serve(
    reference: str,
    *,
    host: str = "127.0.0.1",
    port: int = 3000,
    workers: str | None = None,
    models: Sequence[str] = (),
    certificate: tuple[str | None, str | None] = (None, None),
    **settings: object,
) -> int:
    """Serve a stored model until it is stopped; return BentoML's exit status.

    Args:
        reference: NAME, NAME:VARIANT or a full tag.
        host, port: to listen on.
        workers: a number, or `auto`; None: what HONE_WORKERS or HONE_PLAN says, else 1.
        models: more models to serve.
        certificate: files of a TLS certificate and its key.
        settings: of `services.settings.Settings`, where given not None.

    Raises:
        StoreError: no such model.
        TrustError: it may not run here.
        HoneError: the port is taken, the address needs keys, or what a setting names is missing or broken.
    """
    choice = store.choose(_candidates(reference, settings))
    for reason in choice.passed_over:
        sys.stderr.write(f"passed over {reason}\n")
    for more in models:
        _candidates(more, settings)
    require_free_port(host, port, "--port")
    count = None if workers is None else _workers(workers, choice.entry.tag)
    given = {"model": reference, "models": ",".join(models) or None, "workers": count, **settings}
    arguments = [*_command(host, port), *_tls(certificate)]
    with serve_folder() as folder:
        environment = _environment(given, folder.path)
        check_start(Settings.from_environment(environment), arguments)
        scheme = "https" if certificate[0] else "http"
        sys.stderr.write(f"serving {choice.entry.tag} ({choice.reason}) on {scheme}://{host}:{port}\n")
        status = _wait_forwarding_signals(_start(arguments, environment, folder, _code_root()))
    return 0 if status in (-signal.SIGTERM, -signal.SIGINT) else abs(status)


def _workers(workers: str, tag: str) -> int:
    """Return the number of workers; `auto` measures the model in a process of its own, whose memory is free again."""
    if workers != "auto":
        if not workers.isdigit() or not int(workers):
            raise HoneError(f"--workers {workers}: give a number from 1 up, or auto")
        return int(workers)
    code = f"from hone.services.models.workers import recommend_workers; print(recommend_workers({tag!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_code_root())
    if done.returncode:
        raise HoneError(f"{tag} can't be measured: {why_failed(done.stderr)}")
    count = int(done.stdout.split()[-1])
    sys.stderr.write(f"workers: {count}, as measured\n")
    return count


def _wait_forwarding_signals(process: subprocess.Popen[bytes]) -> int:
    """Wait for the server to end; SIGINT and SIGTERM are passed on, so that it drains before it goes."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda received, _: process.send_signal(received)) for number in numbers]
    try:
        return process.wait()
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def running(
    reference: str, *, workers: int | None = None, threads: int | None = None, **settings: object
) -> Iterator[str]:
    """Start a service on a free port and yield its URL once it is ready; stop it afterwards.

    Raises:
        HoneError: it did not become ready; the message ends with the last line of its log.
    """
    store.choose(_candidates(reference, settings))
    given = {"model": reference, "workers": workers, "threads": threads, **settings}
    with running_service(SERVICE, _code_root(), **given) as url:
        yield url


@contextlib.contextmanager
def running_service(service: str, root: Path, **settings: object) -> Iterator[str]:
    """Start a service on a free port and yield its URL once it is ready; stop it afterwards.

    Args:
        service: `module:Class`, as `bentoml serve` takes it.
        root: the folder of the module.
        settings: of `services.settings.Settings`, where given not None.

    Raises:
        HoneError: it did not become ready; the message ends with the last line of its log.
    """
    port = free_port()
    with serve_folder() as folder:
        log = folder.path / "serve.log"
        environment = _environment(settings, folder.path)
        with log.open("wb") as stream:
            process = _start(
                _command("127.0.0.1", port, service), environment, folder, root, stdout=stream, stderr=stream
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_ready(url, process, log)
            yield url
        finally:
            end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a server as Ctrl-C does; what has not ended in STOP_TIMEOUT_S is killed."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(AGAIN_S)
            return
    process.kill()
    process.wait()


@contextlib.contextmanager
def served(
    url: str | None, reference: str, workers: int | None = None, grpc_port: int | None = None
) -> Iterator[tuple[str, float | None]]:
    """Give a running service: the one at `url`, or one that is started for it and stopped afterwards.

    Yields its URL, and the seconds that a started one took to become ready; the other arguments are of that one.
    """
    if url is not None:
        yield url, None
        return
    started = time.monotonic()
    with running(reference, workers=workers, grpc_port=grpc_port) as base:
        yield base, time.monotonic() - started


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _candidates(reference: str, settings: Mapping[str, object]) -> list[store.Entry]:
    """Return the entries a service may serve, best first; what may not run here is passed over with a line.

    Raises:
        TrustError: none may.
    """
    from .models.loading import candidates

    policy = Policy.from_environment(environment={**os.environ, **_variables(settings)})
    found = {entry.tag: (entry, refusal(entry, policy)) for entry in candidates(reference)}
    admitted = [entry for entry, problem in found.values() if not problem]
    problems = [f"{tag}: {problem}" for tag, (_, problem) in found.items() if problem]
    if not admitted:
        raise TrustError("; ".join(problems))
    for problem in problems:
        sys.stderr.write(f"passed over {problem}\n")
    return admitted


def _variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment variables of the settings that are given."""
    return {f"HONE_{name.upper()}": _text(value) for name, value in settings.items() if value is not None}


def _command(host: str, port: int, service: str = SERVICE) -> list[str]:
    address = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "hone.services.arbiter", "serve", service, *address]


def _tls(certificate: tuple[str | None, str | None]) -> list[str]:
    """Return the options of BentoML's server for a certificate and its key, of those that are given."""
    options = zip(("--ssl-certfile", "--ssl-keyfile"), certificate, strict=True)
    return [part for option, file in options if file for part in (option, _in_full(file))]


def _start(
    command: list[str], environment: dict[str, str], folder: ServeFolder, root: Path, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start the server so that it ends with this process, whatever ends this one."""
    tethered = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tether.py")), str(os.getpid()), *command]
    environment = {**environment, LAUNCHER: str(os.getpid())}
    return subprocess.Popen(tethered, env=environment, cwd=root, pass_fds=(folder.lock,), **streams)


def _code_root() -> Path:
    """Return the folder that holds the `hone` package: BentoML imports a service from its working directory."""
    return Path(hone.__file__).resolve().parent.parent


def _environment(settings: Mapping[str, object], folder: Path) -> dict[str, str]:
    """Return the server's environment.

    BentoML keeps its metrics under its home and wipes them when a server starts. Each server gets a home of its own
    in `folder`, with the real model store in it, so that two servers on one host don't erase each other's. Temporary
    files lie there, too, BentoML's clients' for one, so that those of a killed server go with the folder.
    """
    home = folder / "home"
    home.mkdir()
    (home / "models").symlink_to(store.models_dir().resolve())
    variables = {
        "BENTOML_HOME": home,
        "BENTOML_DO_NOT_TRACK": "True",
        "TMPDIR": folder,
        SHARED_TEMP: tempfile.gettempdir(),
        **_variables(settings),
    }
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    for name in (f"{PREFIX}{setting.upper()}" for setting in FILES):
        if environment.get(name, "").strip():
            environment[name] = _in_full(environment[name].strip())  # the server runs in another folder
    return environment


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _in_full(place: str) -> str:
    """Return the whole path of a file or folder; a URL, "-" for standard output, and JSON stay as they are."""
    return place if place == "-" or "://" in place or place.startswith("{") else str(Path(place).absolute())


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # made by us  # nosec B310
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise HoneError(f"the service did not become ready: {why_failed(log.read_text(errors='replace'))}")
