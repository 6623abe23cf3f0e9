"""Every path that the service answers: the hub routes by this table, Ingress and Gateway are tested against it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """One path.

    Attributes:
        template: with {name} of a model and {version} of it.
        method: GET or POST.
        outside: callers outside the cluster may reach it; what is for operators and probes stays inside.
        open: it answers without a key, where there are keys.
        bentomls: BentoML's application answers it; everything else never reaches that.
    """

    template: str
    method: str
    outside: bool = True
    open: bool = False
    bentomls: bool = False

    def of(self, name: str, version: str = "") -> str:
        """Return the path of a model."""
        return self.template.format(name=name, version=version)


PREDICT = Path("/predict", "POST")
MODEL_PREDICT = Path("/models/{name}/predict", "POST")
VERSION_PREDICT = Path("/models/{name}/versions/{version}/predict", "POST")
V1_PREDICT = Path("/v1/models/{name}:predict", "POST")
V2_INFER = Path("/v2/models/{name}/infer", "POST")
V2_VERSION_INFER = Path("/v2/models/{name}/versions/{version}/infer", "POST")

INFERENCE = (PREDICT, MODEL_PREDICT, VERSION_PREDICT, V1_PREDICT, V2_INFER, V2_VERSION_INFER)
"""Answered by `Hub.routes`."""

METADATA = (
    Path("/v1/models", "GET"),
    Path("/v1/models/{name}", "GET"),
    Path("/v2", "GET"),
    Path("/v2/health/live", "GET", open=True),
    Path("/v2/health/ready", "GET", open=True),
    Path("/v2/models/{name}", "GET"),
    Path("/v2/models/{name}/ready", "GET"),
    Path("/v2/models/{name}/config", "GET"),
    Path("/v2/models/{name}/versions/{version}", "GET"),
    Path("/v2/models/{name}/versions/{version}/ready", "GET"),
    Path("/v2/models/{name}/versions/{version}/config", "GET"),
)
"""Answered by `Management`."""

OPERATION = (
    Path("/v2/repository/index", "POST", outside=False),
    Path("/v2/repository/models/{name}/load", "POST", outside=False),
    Path("/v2/repository/models/{name}/unload", "POST", outside=False),
    Path("/livez", "GET", outside=False, open=True, bentomls=True),
    Path("/healthz", "GET", outside=False, open=True, bentomls=True),
    Path("/readyz", "GET", outside=False, open=True, bentomls=True),
    Path("/metrics", "GET", outside=False, open=True, bentomls=True),
    Path("/schema.json", "GET", outside=False, bentomls=True),
    Path("/docs.json", "GET", outside=False),
    Path("/", "GET", outside=False),
)
"""For operators, probes, BentoML's clients, Prometheus and people who look at the documentation inside the cluster."""

EXPLORER = ("swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-initializer.js")
STATIC = tuple(
    Path(f"/static_content/{name}", "GET", outside=False, open=True, bentomls=True)
    for name in ("swagger-ui.css", "index.css", *EXPLORER)
)
"""The files of BentoML that the page at `/` needs."""

PROBES = frozenset(b"/" + path for path in (b"livez", b"readyz", b"healthz", b"v2/health/live", b"v2/health/ready"))
"""Asked whether a worker lives and is ready; answered when it takes no more connections."""

PATHS = (*INFERENCE, *METADATA, *OPERATION, *STATIC)
