"""A Prometheus that asks who calls: over TLS with a password, and behind a proxy that wants a token."""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone.cli.main import cli
from hone.k8s.planning.history import ask_prometheus
from hone.k8s.planning.prometheus import AUTH_VARIABLE, Access
from tests.prometheus import needs_prometheus, prometheus
from tests.servers import self_signed

LOGIN = "ann:secret:word"
BCRYPT = "$2b$04$abcdefghijklmnopqrstuuzi.0DeJjRkdQvpv3c3e0jCmc2WMJJJq"
"""Of the password in LOGIN."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Prometheus with a certificate of its own and a password; yields its address and the certificate's file."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = self_signed(folder)
    end = 3600 * math.floor(time.time() / 3600)
    lines = [f"load {100 + 50 * math.sin(hour / 4):.3f} {end + 3600 * (hour - 72)}" for hour in range(73)]
    web = f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\nbasic_auth_users: {{ann: {BCRYPT}}}\n"
    history = "\n".join(["# TYPE load gauge", *lines, "# EOF"]) + "\n"
    trusted = ssl.create_default_context(cafile=str(certificate))
    with prometheus(folder, history, web, verify=trusted, auth=tuple(LOGIN.split(":", 1))) as url:
        yield url, str(certificate)


def forecast(url: str, *arguments: str, auth: str | None = None) -> Result:
    command = ["capacity", "forecast", "--prometheus", url, "--query", "load", "--days", "1", *arguments]
    return CliRunner().invoke(cli, command, env={AUTH_VARIABLE: auth})


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert "secret" not in result.output


@needs_prometheus
def test_password_is_taken_from_the_environment(guarded: tuple[str, str]) -> None:
    found = forecast(guarded[0], "--ca", guarded[1], auth=LOGIN)
    assert found.exit_code == 0, found.output
    assert "back-test: " in found.output


@needs_prometheus
def test_password_of_a_file_comes_first(
    guarded: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = guarded
    file = tmp_path / "login"
    file.write_text(f"{LOGIN}\n")
    monkeypatch.setenv(AUTH_VARIABLE, "ann:guessed")
    access = Access.of(file, Path(ca))
    assert "secret" not in repr(access)
    assert len(ask_prometheus(url, "load", 3, time.time(), access=access).rates) == 73


@needs_prometheus
def test_who_may_not_ask_is_told_why(guarded: tuple[str, str]) -> None:
    url, ca = guarded
    refused(forecast(url, "--ca", ca), "answers 401: it asks who calls; HONE_PROMETHEUS_AUTH or --auth-file says")
    refused(forecast(url, "--ca", ca, auth="ann:guessed"), "answers 401: it refuses the name and password")
    refused(forecast(url, auth=LOGIN), "CERTIFICATE_VERIFY_FAILED")
    refused(forecast(url, "--ca", __file__, auth=LOGIN), "test_prometheus.py: no certificates")


def test_what_can_not_be_sent_is_refused(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    refused(forecast("http://ann:secret@127.0.0.1:9"), "--prometheus: leave the password out of the address")
    refused(forecast(url, "--auth-file", str(tmp_path / "none")), "none: No such file or directory")
    for text in ("", "ann:secret\nbob:secret", "secret token", "sécret"):
        file = tmp_path / "login"
        file.write_text(text)
        refused(forecast(url, "--auth-file", str(file)), f"--auth-file {file}: it has to be one line: NAME:PASSWORD")
    refused(forecast(url, auth="a\tb"), "HONE_PROMETHEUS_AUTH: it has to be one line: NAME:PASSWORD, or a token")


def test_token_is_sent_to_the_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, str | None]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append((self.headers["host"], self.headers["authorization"]))
            moved = self.headers["host"].startswith("127.0.0.1")
            self.send_response(302 if moved else 403)
            self.send_header("location", f"http://localhost:{self.server.server_address[1]}/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{proxy.server_port}"
        refused(forecast(f"http://{address}", auth="a.secret.token"), "answers 403: it refuses the token")
        proxy.shutdown()
    assert got == [(address, "Bearer a.secret.token"), (address.replace("127.0.0.1", "localhost"), None)]
