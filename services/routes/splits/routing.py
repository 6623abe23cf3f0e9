"""The table of paths of a worker: which path leads to which version, arm or refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from ...arms.active import ActiveSplit
from ...http.responses import Receive, Scope, Send
from ...protocols import endpoints_of
from ..edge import Edge
from ..endpoint import InferEndpoint
from ..feedback.endpoint import PATH as FEEDBACK
from ..feedback.endpoint import FeedbackEndpoint
from ..served import ServedModel
from ..withdrawn import withdrawn_routes
from .endpoint import SplitEndpoint, shadow_arms

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def routes_of(
    models: Mapping[str, Mapping[str, ServedModel]],
    newest: Mapping[str, ServedModel],
    splits: Mapping[str, ActiveSplit],
    withdrawn: Collection[str],
    default: str,
    edge: Edge,
) -> dict[str, Handler]:
    """Return every path that infers, with what answers there.

    Args:
        models: in memory, by name and version.
        newest: what answers the paths without a version, by name.
        splits: that share these paths out among arms, by name.
        withdrawn: names that nothing answers for.
        default: the name that answers the paths without a name.
        edge: of the worker.
    """
    routes: dict[str, Handler] = {}
    for name, versions in models.items():
        arms = _arms(splits.get(name), versions)
        for version, served in versions.items():
            for endpoint, protocols in endpoints_of(served.loaded.artifact).items():
                whole: list[str] = []
                if served is newest[name]:
                    first = name == default or (endpoint.first_of_kind and endpoint.default not in routes)
                    whole = [path for path in (endpoint.model, endpoint.default if first else "") if path]
                answer: Handler = InferEndpoint(endpoint, served, protocols, edge)
                for called in (served.number, version):
                    paths = [path for path in (endpoint.version, *whole) if path]
                    routes.update((path.format(name=name, version=called), answer) for path in paths)
                if whole and arms and all(endpoint in endpoints_of(arm.loaded.artifact) for arm in arms):
                    answer = SplitEndpoint(endpoint, splits[name], arms, protocols, edge)
                    routes.update((path.format(name=name), answer) for path in whole)
    routes.update((FEEDBACK.format(name=name), FeedbackEndpoint(name, edge)) for name in {*models, *withdrawn})
    for name in withdrawn:
        if name not in models:
            routes |= withdrawn_routes(name, edge, default=name == default)
    return routes


def _arms(active: ActiveSplit | None, versions: Mapping[str, ServedModel]) -> list[ServedModel]:
    """Return the versions of a split's arms; none where one isn't loaded: what answers without it answers all."""
    if active is None:
        return []
    arms = [versions[arm.version] for arm in active.split.arms if arm.version in versions]
    if len(arms) < len(active.split.arms):
        return []
    shadow_arms(active, arms)
    return arms
