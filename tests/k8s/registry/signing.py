"""Keys that openssl makes, images without files, and registries that differ in what they can list."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hone.k8s.tools.registry.client import OCI_INDEX, OCI_MANIFEST, ImagePlace, Registry, as_json, digest_of
from hone.k8s.tools.registry.simple import CONFIG

PASSED_ON = ("accept", "content-type")
PASSED_BACK = ("content-type", "docker-content-digest", "location")


def openssl(folder: Path, *words: str) -> str:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def never() -> str:
    raise AssertionError("no password is needed")


def put_image(host: str, name: str, tag: str, architecture: str = "amd64") -> str:
    """Put an image without files into a registry; return its digest."""
    there = Registry(ImagePlace.of(f"{host}/{name}:{tag}"))
    rootfs = {"type": "layers", "diff_ids": []}
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "config": there.put(CONFIG, config)}
    there.put_manifest(tag, manifest)
    return digest_of(as_json(manifest))


@contextmanager
def listing(host: str) -> Iterator[str]:
    """Put a front before a registry that lists what refers to an image, one on a page; Debian's registry can't."""
    known: dict[str, list[dict[str, Any]]] = {}

    class Front(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, page = self.path.partition("?after=")
            if "/referrers/" in path:
                self._list(path, int(page or 0))
            else:
                self._pass_on()

        def do_PUT(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_HEAD(self) -> None:
            self._pass_on()

        def _list(self, path: str, at: int) -> None:
            found = known.get(path.rpartition("/")[2], [])
            more = {"Link": f'<{path}?after={at + 1}>; rel="next"'} if at + 1 < len(found) else {}
            body = as_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[at : at + 1]})
            self._answer(200, {"Content-Type": OCI_INDEX, **more}, body)

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            url = f"http://{host}{self.path}"
            given = body if self.command in ("PUT", "POST") else None
            request = urllib.request.Request(url, given, headers, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    back = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
                    self._answer(answer.status, {**back, **self._subject(body)}, answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, {}, error.read())

        def _subject(self, body: bytes) -> dict[str, str]:
            if self.command != "PUT" or "/manifests/" not in self.path:
                return {}
            manifest = json.loads(body)
            if "subject" not in manifest:
                return {}
            described = {"mediaType": manifest["mediaType"], "size": len(body), "digest": digest_of(body)}
            subject = manifest["subject"]["digest"]
            known.setdefault(subject, []).append({**described, "artifactType": manifest["artifactType"]})
            return {"OCI-Subject": subject}

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{front.server_port}"
        front.shutdown()
