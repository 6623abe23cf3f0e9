"""nginx in front of replicas on this host, with the configuration of `k8s/compose/nginx.conf`.

What differs there is put in its place: addresses, and shares of the requests by version. nginx takes a new
configuration without losing a request that it has; what a reload would lose is the next request on a connection that a
caller keeps open, when it comes just as the old processes close it. So before a reload callers are asked, with their
next answers, to open new connections: while the file `parting` is there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from hone.errors import UnavailableError, shorten
from hone.files import atomic_write
from hone.k8s.numbers import K8S
from hone.processes import signal_group, why_failed

from .life import tethered
from .state import Replica, ReplicasError

SOURCE = K8S / "compose" / "nginx.conf"
PARTING_S = 1.0
"""That callers have to leave the connections that they keep open."""
LAST_ANSWERS_S = 35.0
"""That the processes of the old configuration have for their last answers: its longest timeout, and room."""
START_S = 10.0
WRONG_IN_PATHS = re.compile(r"[\"\\$;{}\n]")

Groups = Mapping[str, tuple[float, Sequence[Replica]]]
"""By version: percent of the requests, and who answers them."""


def require_nginx() -> str:
    """Return nginx's program; raises UnavailableError where there is none."""
    # Debian keeps it where users who are not root don't look.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise UnavailableError("nginx is not installed", "apt install nginx (macOS: brew install nginx)")
    return program


def configuration(
    folder: Path, host: str, port: int, grpc_port: int | None, groups: Groups, tls: tuple[str, str] | None = None
) -> str:
    """Return nginx's configuration.

    Args:
        folder: for its process id, its log and bodies that don't fit into memory.
        host, port, grpc_port: to listen on; without the last gRPC is left out.
        groups: who answers which share.
        tls: files of a certificate and its key, to be shown at both ports.

    Raises:
        ReplicasError: `k8s/compose/nginx.conf` isn't as this knows it.
    """
    if WRONG_IN_PATHS.search(str(folder)):
        raise ReplicasError(f"{folder}: nginx can't take a folder of such a name; move the model store elsewhere")
    if wrong := [file for file in tls or () if WRONG_IN_PATHS.search(file)]:
        raise ReplicasError(f"{wrong[0]}: nginx can't take a file of such a name; move it elsewhere")
    # What lies in the container's /tmp lies in the folder here.
    text = re.sub(r"/tmp/([\w.]+)", rf'"{folder}/\1"', SOURCE.read_text())  # nosec B108
    address = f"[{host}]" if ":" in host else host
    text = _put(text, r"\n  #[^\n]*\n  resolver [^\n]*", "")
    ssl = " ssl" if tls else ""
    if tls:
        text = _put(text, r"  server_tokens off;\n", f"  server_tokens off;\n{_shown(*tls)}")
    text = _put(text, r"listen 8080;", f"listen {address}:{port}{ssl};\n{_parting(folder)}")
    if grpc_port is None:
        text = _put(text, r"\n  server \{\n    listen 9000 http2;.*?\n  \}", "")
        text = _put(text, r"\n  upstream grpc_replicas \{.*?\n  \}", "")
    else:
        text = _put(text, r"listen 9000 http2;", f"listen {address}:{grpc_port} http2{ssl};")
    for kind in ("http", "grpc")[: 1 if grpc_port is None else 2]:
        text = _dealt(text, kind, groups)
    text = _put(text, r"error_log /dev/stderr", f'error_log "{folder}/nginx.log"')
    return f"# From k8s/compose/nginx.conf, by hone up: changes here are lost.\n{_parted_locations(text)}"


def _dealt(text: str, kind: str, groups: Groups) -> str:
    """Return the text with an upstream for each version, and the requests dealt out among them."""
    block = re.search(rf"  upstream {kind}_replicas \{{.*?\n  \}}\n", text, re.DOTALL)
    if block is None:
        raise ReplicasError(f"{SOURCE}: no upstream {kind}_replicas")
    upstreams = []
    for number, (_, replicas) in enumerate(groups.values(), 1):
        ports = [replica.port if kind == "http" else replica.grpc_port for replica in replicas]
        one = _put(block[0], r"server model:\d+ resolve ", f"{PLACE} ")
        one = "".join(
            "".join(line.replace(PLACE, f"server 127.0.0.1:{port}") for port in ports) if PLACE in line else line
            for line in one.splitlines(keepends=True)
        )
        upstreams.append(one.replace(f"{kind}_replicas", f"{kind}_replicas_{number}"))
    names = [f"{kind}_replicas_{number}" for number in range(1, len(groups) + 1)]
    target = names[0]
    if len(groups) > 1:
        target = f"${kind}_replicas"
        shares = [f"{share:.2f}%" for share, _ in groups.values()]
        # The first is the stable one: it gets what is left.
        lines = [f"    {share} {name};\n" for share, name in zip(shares[1:], names[1:], strict=True)]
        key = f"${{request_id}}{kind}"
        upstreams.append(f'  split_clients "{key}" {target} {{\n{"".join(lines)}    * {names[0]};\n  }}\n')
    text = text.replace(block[0], "".join(upstreams))
    scheme = "http" if kind == "http" else "grpc"
    return text.replace(f"pass {scheme}://{kind}_replicas;", f"pass {scheme}://{target};")


PLACE = "server-of-a-replica"


def _shown(certificate: str, key: str) -> str:
    return (
        f'  ssl_certificate "{certificate}";\n  ssl_certificate_key "{key}";\n'
        "  ssl_protocols TLSv1.2 TLSv1.3;\n  ssl_session_cache shared:tls:4m;\n"
    )


def _parting(folder: Path) -> str:
    return (
        "    # Before a reload: the answer says that its connection is closed.\n"
        f'    if (-f "{folder}/parting") {{ rewrite ^ /parting$uri last; }}'
    )


def _parted_locations(text: str) -> str:
    """Return the text with a twin of each location, whose answers close their connection."""

    def twin(found: re.Match[str]) -> str:
        exact, path, target = found.groups("")
        inside = f"internal; keepalive_timeout 0; rewrite ^/parting(/.*)$ $1 break; proxy_pass {target};"
        return f"{found[0]}\n    location {exact}/parting{path} {{ {inside} }}"

    return re.sub(r"    location (= )?(/\S+) \{ proxy_pass (\S+); \}", twin, text)


def _put(text: str, pattern: str, other: str) -> str:
    """Return the text with another in place of a part; raises ReplicasError unless it is there once."""
    made, count = re.subn(pattern, lambda _: other, text, flags=re.DOTALL)
    if count != 1:
        raise ReplicasError(f"{SOURCE}: '{pattern}' is there {count} times, wanted once")
    return made


class Balancer:
    """nginx's process.

    Args:
        folder: its own; the configuration is `nginx.conf` there.

    Attributes:
        process: nginx's; None: it was never started.
    """

    def __init__(self, folder: Path) -> None:
        self._program = require_nginx()
        self._folder = folder
        self._file = folder / "nginx.conf"
        self._log = folder / "nginx.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0: it doesn't run."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def apply(self, text: str) -> None:
        """Put a configuration in force: start nginx with it, or reload it; return when nothing of the old one is left.

        Raises:
            ReplicasError: nginx doesn't take it; what was in force stays.
        """
        trial = self._file.with_suffix(".new")
        atomic_write(trial, text, mode=0o600, durable=False)
        done = subprocess.run(self._command(trial, "-t", "-q"), capture_output=True, text=True)
        if done.returncode:
            raise ReplicasError(f"nginx doesn't take its configuration: {_why(done.stderr)}")
        trial.replace(self._file)
        if self.pid:
            self._reload()
        else:
            self._start()

    def _command(self, file: Path, *more: str) -> list[str]:
        user = "user root; " if os.getuid() == 0 else ""  # the folder is its owner's alone
        return [self._program, "-c", str(file), "-p", str(self._folder), "-g", f"{user}daemon off;", *more]

    def _start(self) -> None:
        self._parting.unlink(missing_ok=True)
        self._to_rest(signal.SIGQUIT)  # they close their port, and answer what they have
        self.process = tethered(self._command(self._file), self._log)
        deadline = time.monotonic() + START_S
        while self.pid and time.monotonic() < deadline:
            if self._workers():
                return
            time.sleep(0.02)
        raise ReplicasError(f"nginx doesn't start: {_why(self._log.read_text(errors='replace')[-4000:])}")

    def _reload(self) -> None:
        before = self._workers()
        self._parting.touch()
        try:
            time.sleep(PARTING_S)
            if self.process is not None:
                self.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + LAST_ANSWERS_S
            while self.pid and time.monotonic() < deadline and not self._is_handed_over(before):
                time.sleep(0.02)
        finally:
            self._parting.unlink(missing_ok=True)
        while self.pid and time.monotonic() < deadline and self._workers() & before:
            time.sleep(0.02)

    def _is_handed_over(self, before: set[int]) -> bool:
        """Return whether new processes answer, and the old ones have closed the connections that callers kept open."""
        now = self._workers()
        return bool(now - before) and all(map(_is_leaving, now & before))

    @property
    def _parting(self) -> Path:
        return self._folder / "parting"

    def _workers(self) -> set[int]:
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.pid).children() if self.pid else []
            return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}
        return set()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End nginx: first what it is answering, then, after a while, in any case."""
        if self.process is None:
            return
        for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
            if self.pid:
                self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
                break
        self._to_rest(signal.SIGKILL)

    def _to_rest(self, number: signal.Signals) -> None:
        """Signal what an nginx that has ended left: its workers go on where it was killed, and keep the port."""
        if self.process is not None:
            signal_group(self.process.pid, number)


def _why(output: str) -> str:
    """Return what nginx says is wrong, without its time and process."""
    found = re.findall(r"\[emerg\] (?:\d+#\d+: )?(.+)", output)
    return shorten(found[-1], 400) if found else why_failed(output)


def _is_leaving(worker: int) -> bool:
    """Return whether a process of nginx is on its way out: its title says so."""
    with contextlib.suppress(psutil.Error):
        return "shutting down" in " ".join(psutil.Process(worker).cmdline())
    return True
