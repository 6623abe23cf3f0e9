"""Prometheus queries that compare the pods of two versions: bounds of the difference of two shares."""

from __future__ import annotations

PROMETHEUS = "http://prometheus-operated.monitoring:9090"

WEIGHTS = (5, 25, 50)
MORE_ERRORS = 0.01
MORE_SLOW = 0.02
"""Shares of requests that may fail, or be slower than the limit, beyond those of the version that serves."""

NORMAL = 2.5
"""Standard errors on each side: at four steps, no more than one equal version in forty is called worse."""

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of hone_request_seconds."""


def questions(limit_s: float, window: str) -> list[tuple[str, str, float]]:
    """Return name, events as a query and what is allowed of each thing that both versions are compared by."""
    bound = next((bound for bound in BOUNDS_S if bound >= limit_s), BOUNDS_S[-1])
    failed = f'hone_requests_total{{PODS,status=~"5.."}}[{window}]'
    slow = f'hone_request_seconds_bucket{{PODS,le="{bound:g}"}}[{window}]'
    return [
        ("errors", f"(sum(increase({failed})) or vector(0))", MORE_ERRORS),
        ("slow", f"({_all(window)} - sum(increase({slow})))", MORE_SLOW),
    ]


def _all(window: str) -> str:
    return f"sum(increase(hone_request_seconds_count{{PODS}}[{window}]))"


def difference(events: str, pods: dict[str, str], window: str, *, side: int) -> str:
    """Return a query of a bound of the difference of two shares, the canary's less the stable version's.

    The interval is that of Agresti and Caffo (Simple and effective confidence intervals for proportions and differences
    of proportions, The American Statistician 54, 2000): one event and one other more of each version.

    Args:
        events: a query of how many there were of the pods PODS.
        pods: a pattern of the names of each version's pods.
        window: that is looked back over.
        side: 1 for the upper bound, -1 for the lower one.
    """

    def of(version: str, query: str) -> str:
        return query.replace("PODS", f'namespace="hone",pod=~"{pods[version]}"')

    shares = {v: f"(({of(v, events)} + 1) / ({of(v, _all(window))} + 2))" for v in ("canary", "stable")}
    spread = " + ".join(f"{p} * (1 - {p}) / ({of(v, _all(window))} + 2)" for v, p in shares.items())
    sign = "+" if side > 0 else "-"
    return f"{shares['canary']} - {shares['stable']} {sign} {NORMAL:g} * sqrt({spread})"
