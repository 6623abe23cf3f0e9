"""A registry over HTTP, with the login that `docker login` left. https://github.com/opencontainers/distribution-spec"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from hone.errors import HoneError, one_line

TIMEOUT_S = 10.0
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = ", ".join(
    (
        OCI_INDEX,
        OCI_MANIFEST,
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
NOTHING = (404, 405, 501)
"""How registries answer when they have something not, or don't know how to list what refers to an image."""
MOST_BYTES = 4_000_000
"""Of an answer: manifests and signatures are small."""


class RegistryError(HoneError):
    """A registry that refuses, can't be asked or answers nonsense."""


@dataclass(frozen=True)
class ImagePlace:
    """Where an image is: host of the registry, name there, tag or digest."""

    host: str
    name: str
    reference: str

    @classmethod
    def of(cls, image: str) -> ImagePlace:
        """Read an image's name as container engines do: without a host, it is Docker Hub's."""
        host, slash, rest = image.partition("/")
        if not slash or not (re.search("[.:]", host) or host == "localhost"):
            host, rest = "docker.io", image if slash else f"library/{image}"
        name, at, digest = rest.partition("@")
        path, colon, tag = name.rpartition(":")
        name = path if colon else name
        return cls(host, name, digest if at else tag if colon else "latest")

    @property
    def base(self) -> str:
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        local = host.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if local else 'https'}://{host}/v2/{self.name}"

    @property
    def url(self) -> str:
        return f"{self.base}/manifests/{self.reference}"


@dataclass
class Registry:
    """One repository of a registry.

    Args:
        place: of an image in it.
    """

    place: ImagePlace
    _authorization: str = field(default="", init=False)

    def ask(self, method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[dict[str, str], bytes]:
        """Return the headers, in small letters, and the body of an answer.

        Args:
            headers: `_` stands for `-`.

        Raises:
            URLError: it can't be asked; HTTPError: it refuses; ValueError: its tokens come from where none may.
        """
        try:
            return self._once(method, url, body, headers)
        except urllib.error.HTTPError as error:
            # What is said to one question, such as a token to read, may not do for another.
            before = self._authorization
            if error.code != 401:
                raise
            self._log_in(error.headers)
            if self._authorization == before:
                raise
        return self._once(method, url, body, headers)

    def _once(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._authorization and url.startswith(self.place.base.partition("/v2/")[0]):
            given["Authorization"] = self._authorization
        request = urllib.request.Request(url, data=body, method=method, headers=given)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # of an image's name  # nosec B310
            return {name.lower(): value for name, value in answer.headers.items()}, answer.read(MOST_BYTES)

    def _log_in(self, headers: Message) -> None:
        challenge, login = headers.get("www-authenticate", ""), _login(self.place.host)
        if challenge.lower().startswith("bearer "):
            self._authorization = f"Bearer {_token(challenge, login)}"
        elif login:
            self._authorization = f"Basic {login}"

    def digest(self) -> str:
        """Return the digest that the image is there under; raises as `ask` does."""
        headers, _ = self.ask("HEAD", self.place.url, accept=MANIFESTS)
        return headers.get("docker-content-digest", "")

    def described(self) -> dict[str, Any]:
        """Return the descriptor of the image: type, size and digest; raises as `ask` does."""
        headers, body = self.ask("GET", self.place.url, accept=MANIFESTS)
        return {"mediaType": headers.get("content-type", OCI_MANIFEST), "size": len(body), "digest": digest_of(body)}

    def manifest(self, reference: str, kind: str = OCI_MANIFEST) -> dict[str, Any]:
        """Return a manifest; an empty one where there is none.

        Raises:
            RegistryError: it isn't one; else as `ask` does.
        """
        return self._object(f"{self.place.base}/manifests/{reference}", kind)[1]

    def layers(self, reference: str) -> list[dict[str, Any]]:
        """Return the layers of a manifest, none where there is no such manifest; raises as `manifest` does."""
        return _objects(self.manifest(reference).get("layers"))

    def referrers(self, digest: str) -> Iterator[dict[str, Any]]:
        """Yield the descriptors of what refers to an image, by the registry's list or, where it keeps none, the tag's.

        Raises as `manifest` does. https://github.com/opencontainers/distribution-spec/blob/main/spec.md
        """
        url = f"{self.place.base}/referrers/{digest}"
        headers, listed = self._object(url, OCI_INDEX)
        if not listed:
            listed = self.manifest(_list_of(digest), OCI_INDEX)
        seen = {url}
        while True:
            yield from _objects(listed.get("manifests"))
            following = re.search(r'<([^>]+)>\s*;\s*rel="?next', headers.get("link", ""))
            url = urllib.parse.urljoin(url, following[1]) if following else url
            if url in seen or not url.startswith(self.place.base):
                return
            seen.add(url)
            headers, listed = self._object(url, OCI_INDEX)

    def _object(self, url: str, kind: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Return headers and body of an object in JSON, of nothing where there is none."""
        try:
            headers, body = self.ask("GET", url, accept=kind)
            found = json.loads(body)
        except urllib.error.HTTPError as error:
            if error.code in NOTHING:
                return {}, {}
            raise
        except ValueError as error:
            last = url.rpartition("/")[2]
            raise RegistryError(f"{self.place.host}: {last} is no manifest: {one_line(error)}") from None
        return headers, found if isinstance(found, dict) else {}

    def blob(self, digest: str) -> bytes:
        """Return a blob; raises RegistryError when it isn't what its digest says."""
        _, body = self.ask("GET", f"{self.place.base}/blobs/{digest}")
        if digest_of(body) != digest:
            raise RegistryError(f"{self.place.host}: blob {digest[:19]} is something else than its digest says")
        return body

    def put_blob(self, content: bytes) -> str:
        """Upload a blob; return its digest."""
        digest = digest_of(content)
        headers, _ = self.ask("POST", f"{self.place.base}/blobs/uploads/", b"")
        place = urllib.parse.urljoin(f"{self.place.base}/", headers.get("location", ""))
        joined = f"{place}{'&' if '?' in place else '?'}digest={urllib.parse.quote(digest)}"
        self.ask("PUT", joined, content, content_type="application/octet-stream")
        return digest

    def put(self, kind: str, content: bytes) -> dict[str, Any]:
        """Upload a blob; return its descriptor."""
        return {"mediaType": kind, "size": len(content), "digest": self.put_blob(content)}

    def put_manifest(self, reference: str, manifest: dict[str, Any]) -> dict[str, str]:
        """Put a manifest under a tag or its digest; return the headers of the answer."""
        url, kind = f"{self.place.base}/manifests/{reference}", str(manifest["mediaType"])
        return self.ask("PUT", url, as_json(manifest), content_type=kind)[0]

    def refer(self, manifest: dict[str, Any]) -> None:
        """Put a manifest that refers to its subject; a registry that keeps no list of those gets one under a tag."""
        content = as_json(manifest)
        described = {"mediaType": manifest["mediaType"], "size": len(content), "digest": digest_of(content)}
        if "oci-subject" in self.put_manifest(described["digest"], manifest):
            return
        tag = _list_of(manifest["subject"]["digest"])
        there = _objects(self.manifest(tag, OCI_INDEX).get("manifests"))
        added = {**described, "artifactType": manifest["artifactType"], "annotations": manifest["annotations"]}
        self.put_manifest(tag, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*there, added]})


def as_json(content: Any) -> bytes:
    """Return plain values as JSON that is the same each time."""
    return json.dumps(content, separators=(",", ":")).encode()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _list_of(digest: str) -> str:
    """Return the tag of the list of what refers to an image, where the registry keeps none."""
    return digest.replace(":", "-")


def _objects(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _token(challenge: str, login: str) -> str:
    """Return what a registry's own service for tokens gives for a challenge."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ValueError(f"its tokens are at '{realm}', which is no https address")
    headers = {"Authorization": f"Basic {login}"} if login else {}
    request = urllib.request.Request(f"{realm}?{urllib.parse.urlencode(fields)}", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # checked above  # nosec B310
        content = json.load(answer)
    return str(content.get("token") or content.get("access_token") or "")


def _login(host: str) -> str:
    """Return `user:password` in base64 that `docker login` left for a registry; empty where there is none."""
    try:
        known = json.loads((Path.home() / ".docker" / "config.json").read_text()).get("auths", {})
        key = "https://index.docker.io/v1/" if host == "docker.io" else host
        login = str(known.get(key, {}).get("auth", ""))
        base64.b64decode(login, validate=True)
    except (OSError, ValueError, AttributeError, binascii.Error):
        return ""
    return login
