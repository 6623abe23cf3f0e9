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
    """

    template: str
    method: str
    outside: bool = True

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
    Path("/v2/health/live", "GET"),
    Path("/v2/health/ready", "GET"),
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
    Path("/livez", "GET", outside=False),
    Path("/healthz", "GET", outside=False),
    Path("/readyz", "GET", outside=False),
    Path("/metrics", "GET", outside=False),
    Path("/docs.json", "GET", outside=False),
    Path("/", "GET", outside=False),
)
"""For operators, probes, Prometheus and people who look at the documentation inside the cluster."""

PATHS = (*INFERENCE, *METADATA, *OPERATION)
