"""The page at `/`: what models there are, and how to call them. It asks no other host for anything.

BentoML's own page loads a tracker from a host elsewhere. Ours keeps its explorer of `/docs.json`, whose files come
with BentoML, below a description that works without scripts; a policy header keeps the browser from asking others.
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Sequence
from typing import Any

import orjson

from hone.runtimes import remark
from hone.signature import TensorSpec

from ..http.responses import NO_STORE, Fields
from ..models.examples import example_request
from ..models.loading import LoadedModel
from ..protocols.schemas import nested
from ..settings import Settings
from .paths import EXPLORER

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LONGEST_EXAMPLE = 2000
"""Characters of a row; a longer one is left to /docs.json."""

URL = "@URL@"
"""Stands for the service's own address in a page that was made once."""

HTML_FIELDS: Fields = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    NO_STORE,
]

_PLAIN_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]{1,255}")

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
<link rel="stylesheet" href="./static_content/index.css">
<style>
main {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #222 }}
main pre {{ background: #eee; padding: .7rem; overflow-x: auto; font-size: .85rem }}
main th, main td {{ text-align: left; padding: .1rem 1rem .1rem 0; font-weight: normal }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
"""
_MODEL = """<h2>{name}</h2>
<p>Version <code>{version}</code>: variant {variant}, {runtime}, {precision}.</p>
<table>
{tensors}
</table>
<p>{how}</p>
<pre>{call}</pre>
"""
_TAIL = """<p>Every path with its forms, and rows that work: <a href="./docs.json">docs.json</a>.
Metrics: <a href="./metrics">metrics</a>.</p>
</main>
<div id="swagger-ui"></div>
{scripts}
</body>
</html>
"""


def page(models: Sequence[LoadedModel], settings: Settings) -> str:
    """Return the page of these models, with `URL` where the service's address belongs."""
    title = "Models" if len(models) != 1 else models[0].entry.name
    parts = [_HEAD.format(title=html.escape(title)), *(_section(model, settings) for model in models)]
    scripts = "\n".join(f'<script src="./static_content/{name}"></script>' for name in EXPLORER)
    return "".join([*parts, _TAIL.format(scripts=scripts)])


def address(scheme: str, host: bytes) -> str:
    """Return the address under which a caller sees the service; a host that is none becomes localhost."""
    name = host.decode() if _PLAIN_HOST.fullmatch(host) else "localhost"
    return f"{scheme}://{name}"


def _section(model: LoadedModel, settings: Settings) -> str:
    artifact, entry = model.artifact, model.entry
    inputs = example_request(artifact, real_rows=not settings.insecure)
    body = orjson.dumps({"inputs": nested({name: array[:1] for name, array in inputs.items()})}).decode()
    fits = len(body) <= LONGEST_EXAMPLE
    key = " \\\n  -H 'x-api-key: KEY'" if settings.secured else ""
    call = f"curl -s {URL}/models/{entry.name}/predict -H 'content-type: application/json'{key} \\\n  -d "
    call += shlex.quote(body) if fits else "@row.json"
    how = "A call:" if fits else "A call; a row is too long for this page, docs.json has one:"
    manifest, signature = artifact.manifest, model.offered
    tensors = [_row("input", spec) for spec in signature.inputs] + [_row("output", spec) for spec in signature.outputs]
    shown: dict[str, Any] = {
        "name": entry.name, "version": entry.version, "variant": manifest.variant,
        "runtime": remark(manifest) or artifact.runtime,
        "precision": manifest.precision, "how": how, "call": call,
    }  # fmt: skip
    return _MODEL.format(tensors="\n".join(tensors), **{key: html.escape(str(text)) for key, text in shown.items()})


def _row(kind: str, spec: TensorSpec) -> str:
    cells = (kind, spec.name, spec.describe())
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
