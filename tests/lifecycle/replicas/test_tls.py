"""TLS in front of replicas: nginx shows the certificate, a renewed one too, and what is behind it goes on."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.lifecycle.replicas.balancer import configuration, require_nginx
from hone.lifecycle.replicas.fleet import Place
from hone.lifecycle.replicas.state import Replica, ReplicasError
from tests.models.dense import dense_artifact
from tests.servers import self_signed

from .running import Caller, Up, hurry, needs_nginx, up


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("a", "b"):
        store.put(dense_artifact(tmp_path / version, variant=version), "dense", version)
    hurry(monkeypatch)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "issued"
    folder.mkdir()
    issued = self_signed(folder)
    links = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file, link in zip(issued, links, strict=True):
        relink(file, link)
    return links


@pytest.fixture
def running(stored: None, pair: tuple[Path, Path]) -> Iterator[Up]:
    with up("dense:a", tls=pair) as found:
        yield found


def shown(port: int) -> int:
    """Return the serial number of the certificate that is shown at a port."""
    from cryptography import x509

    text = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(text.encode()).serial_number


@needs_nginx
@pytest.mark.parametrize("grpc_port", [None, 9000])
def test_nginx_takes_the_configuration(tmp_path: Path, pair: tuple[Path, Path], grpc_port: int | None) -> None:
    files = str(pair[0]), str(pair[1])
    groups = {"a": (100.0, [Replica(id="r1", version="a", port=3100, grpc_port=9100)])}
    text = configuration(tmp_path, "127.0.0.1", 3000, grpc_port, groups, files)
    (tmp_path / "nginx.conf").write_text(text)
    command = [require_nginx(), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "listen 127.0.0.1:3000 ssl;" in text
    assert ("listen 127.0.0.1:9000 http2 ssl;" in text) == (grpc_port is not None)
    with pytest.raises(ReplicasError, match="nginx can't take a file of such a name"):
        configuration(tmp_path, "127.0.0.1", 3000, None, groups, ("/a;b/cert.pem", files[1]))


@needs_nginx
def test_shares_and_certificates_change_without_a_broken_request(running: Up, pair: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=str(pair[0]))
    assert running.fleet.seen.url == f"https://127.0.0.1:{running.port}"
    assert httpx.get(f"http://127.0.0.1:{running.port}/v2/health/ready").status_code == 400
    with Caller(running.port, tls=trusting) as caller:
        running.fleet.add("b", 1)
        running.fleet.wait_ready("b", 1, lambda: None)
        running.fleet.change({"a": 50.0, "b": 50.0})
        running.fleet.wait_dealt(lambda: None)
        running.wait("both answer", lambda: {version for _, version in caller.answers} == {"a", "b"})
    assert caller.broken == []
    assert {status for status, _ in caller.answers} == {200}
    assert shown(running.port) == 1
    # Half of a renewal leaves what is shown, and says why.
    folder = pair[0].parent / "renewed"
    folder.mkdir()
    renewed = self_signed(folder, number=2)
    relink(renewed[0], pair[0])
    running.wait("it is told", lambda: "nginx doesn't take its configuration" in running.fleet.seen.why)
    assert shown(running.port) == 1
    relink(renewed[1], pair[1])
    running.wait("the new one is shown", lambda: shown(running.port) == 2)
    running.wait("it is said", lambda: "nginx shows the certificate that was renewed" in running.said)
    assert running.fleet.seen.why == ""


def relink(file: Path, link: Path) -> None:
    """Let a link be to another file, as certbot and Kubernetes renew certificates."""
    made = link.with_suffix(".new")
    made.symlink_to(file)
    made.replace(link)


def test_links_stay_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("live.pem").symlink_to("first.pem")
    assert Place(certificate="live.pem").tls == (str(tmp_path / "live.pem"),) * 2


@needs_nginx
def test_wrong_files_are_one_line_and_start_nothing(stored: None, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    for name in ("other", "old"):
        (tmp_path / name).mkdir()
    other = self_signed(tmp_path / "other")[1]
    old = self_signed(tmp_path / "old", (-9, -1))
    for words, said in (
        (("--ssl-certfile", "none.pem", "--ssl-keyfile", str(pair[1])), "none.pem: can't be read: No such file"),
        (("--ssl-certfile", str(pair[0]), "--ssl-keyfile", str(other)), "key values mismatch"),
        (("--ssl-certfile", str(pair[0])), "not usable with its key"),
        (("--ssl-keyfile", str(pair[1])), "--ssl-keyfile needs --ssl-certfile"),
        (("--ssl-certfile", str(old[0]), "--ssl-keyfile", str(old[1])), "certificate has expired"),
    ):
        done = CliRunner().invoke(cli, ["up", "dense", *words])
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
        assert said in done.output
    assert "isn't up" in CliRunner().invoke(cli, ["down", "dense"]).output
