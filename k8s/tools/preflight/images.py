"""Can the images be pulled: asked of their registries, as a node will, by the distribution specification of OCI."""

from __future__ import annotations

import base64
import binascii
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.errors import one_line
from hone.records import Finding

from ..cluster import containers

TIMEOUT_S = 10.0
ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
EXAMPLES = ("example.com", "example.org", "example.net")
"""Hosts that RFC 2606 keeps for documentation."""


def images(objects: list[dict[str, Any]]) -> list[Finding]:
    """Ask for the image of every container."""
    names = {container["image"] for item in objects for container in containers(item)}
    return [pullable(name) for name in sorted(names)]


def pullable(image: str) -> Finding:
    """Return whether a registry has an image, and lets this host have it."""
    place = ImagePlace.of(image)
    if place.host.partition(":")[0].endswith(EXAMPLES):
        remedy = "name your image: hone k8s render --image-record, or `images` of the kustomization"
        return Finding("image", "missing", f"{image} is at an example's address", remedy)
    try:
        digest = _digest(place)
    except urllib.error.HTTPError as error:
        return _refused(image, place, error.code)
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = one_line(getattr(error, "reason", None) or error)
        remedy = "run it where the registry is reached; the nodes must reach it, too"
        return Finding("image", "unknown", f"{place.host} can't be asked from here: {why}", remedy)
    return Finding("image", "ok", f"{image} is there{f', {digest[:19]}' if digest else ''}")


def _refused(image: str, place: ImagePlace, status: int) -> Finding:
    if status == 404:
        remedy = "push it: hone containerize MODEL --tag … --push"
        return Finding("image", "missing", f"{place.host} has no {image}", remedy)
    if status in (401, 403):
        remedy = f"docker login {place.host}, and an imagePullSecret for the nodes"
        return Finding("image", "unknown", f"{place.host} wants credentials for {image}", remedy)
    return Finding("image", "unknown", f"{place.host} answers {status} for {image}", "ask again, or look at its log")


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
    def url(self) -> str:
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        local = host.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if local else 'https'}://{host}/v2/{self.name}/manifests/{self.reference}"


def _digest(place: ImagePlace) -> str:
    """Return the digest that a registry has an image under; raises URLError or, when it refuses, HTTPError."""
    try:
        return _head(place.url, "")
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("www-authenticate", "")
        login = _login(place.host)
        if error.code != 401:
            raise
        if challenge.lower().startswith("bearer "):
            return _head(place.url, f"Bearer {_token(challenge, login)}")
        if not login:
            raise
        return _head(place.url, f"Basic {login}")


def _head(url: str, authorization: str) -> str:
    headers = {"Accept": ACCEPTED, **({"Authorization": authorization} if authorization else {})}
    request = urllib.request.Request(url, method="HEAD", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # of an image's name  # nosec B310
        return str(answer.headers.get("docker-content-digest") or "")


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
