"""Every path that the service answers; what is not here doesn't exist. Ingress and Gateway are tested against it."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocols import all_endpoints


@dataclass(frozen=True)
class Path:
    """One path.

    Attributes:
        template: with {name} of a model, {version} of it and {id} of a job.
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

    def of(self, name: str, version: str = "", job: str = "0" * 32) -> str:
        """Return the path of a model."""
        return self.template.format(name=name, version=version, id=job)


@dataclass(frozen=True)
class JobPath:
    """What a path of jobs is of: all jobs of a model, one of them, or its result."""

    model: str
    job: str = ""
    result: bool = False


def job_path(path: str) -> JobPath | None:
    """Return what a path of jobs is of; None for any other path."""
    parts = path.split("/")
    if parts[:2] != ["", "models"] or parts[3:4] != ["jobs"] or not parts[2]:
        return None
    if len(parts) == 4:
        return JobPath(parts[2])
    if len(parts) == 5 and parts[4]:
        return JobPath(parts[2], parts[4])
    return JobPath(parts[2], parts[4], True) if len(parts) == 6 and parts[4] and parts[5] == "result" else None


INFERENCE = tuple(Path(template, "POST") for endpoint in all_endpoints() for template in endpoint.templates)
"""Answered by `Hub.routes`: what the files of services/protocols registered."""

METADATA = (
    Path("/v1/models", "GET"),
    Path("/v1/models/{name}", "GET"),
    Path("/v2", "GET"),
    Path("/v2/health/live", "GET", open=True),
    Path("/v2/health/ready", "GET", open=True),
    Path("/v2/models/{name}", "GET"),
    Path("/v2/models/{name}/ready", "GET"),
    Path("/v2/models/{name}/config", "GET"),
    Path("/v2/models/{name}/stats", "GET"),
    Path("/v2/models/stats", "GET"),
    Path("/v2/models/{name}/versions/{version}", "GET"),
    Path("/v2/models/{name}/versions/{version}/ready", "GET"),
    Path("/v2/models/{name}/versions/{version}/config", "GET"),
    Path("/v2/models/{name}/versions/{version}/stats", "GET"),
)
"""Answered by `Management`."""

FEEDBACK = (Path("/models/{name}/feedback", "POST"),)
"""Answered by `FeedbackEndpoint`."""

JOBS = (
    Path("/models/{name}/jobs", "POST"),
    Path("/models/{name}/jobs/{id}", "GET"),
    Path("/models/{name}/jobs/{id}/result", "GET"),
)
"""Answered by `services.jobs`; a job is also asked for by DELETE."""

OPERATION = (
    Path("/v2/repository/index", "POST", outside=False),
    Path("/v2/repository/models/{name}/load", "POST", outside=False),
    Path("/v2/repository/models/{name}/unload", "POST", outside=False),
    Path("/v2/repository/models/{name}/split", "GET", outside=False),
    Path("/v2/rollout/{name}/verdict", "GET", outside=False),
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

PATHS = (*INFERENCE, *FEEDBACK, *METADATA, *JOBS, *OPERATION, *STATIC)
