"""A stored artifact, opened to be profiled as it is served."""

from __future__ import annotations

import os

from hone import store
from hone.artifact import Artifact
from hone.hardware import cores
from hone.plan import VARIABLE, Plan, given_plan
from hone.profiles.measure import Asked
from hone.profiles.rows import batch_of
from hone.store.trust import Policy, open_to_run


def asked(reference: str, batch: int | None, rows: int | None, threads: int | None) -> Asked:
    """Return what to profile for a reference, with the threads that it is served with.

    Args:
        reference: of a stored artifact; of several that may be served, the one that this host serves.
        batch: rows of one; None: as its proof was judged.
        rows: to run in all; None: as many as fit into about a second.
        threads: of one inference; None: those of its plan (HONE_PLAN), else those that its proof was judged at.

    Raises:
        StoreError: nothing answers to the reference, or none of it can run here.
        HoneError: it may not run here, it is corrupt, or it doesn't take such a batch.
    """
    entry = store.choose(store.serving_set(reference)).entry
    artifact = open_to_run(entry, Policy.from_environment())
    selection = artifact.manifest.selection
    size = batch or (selection.batch if selection and selection.batch and artifact.signature.batchable else 1)
    plan = _plan(artifact)
    if plan is not None and plan.spin:
        options = {**artifact.manifest.runtime_options, "spin": True}
        artifact = artifact.with_manifest(runtime_options=options)
    count, why = _threads(artifact, plan, threads)
    inputs, source = batch_of(artifact, size)
    runs = None if rows is None else -(-rows // size)
    return Asked(entry.tag, artifact, count, why, inputs, source, size, runs)


def _plan(artifact: Artifact) -> Plan | None:
    given = os.environ.get(VARIABLE, "").strip()
    plan = given_plan(given) if given else None
    return plan if plan is not None and plan.digest == artifact.digest else None


def _threads(artifact: Artifact, plan: Plan | None, threads: int | None) -> tuple[int, str]:
    if threads is not None:
        return threads, "as asked for"
    if plan is not None:
        return plan.threads, f"as {VARIABLE} says"
    judged = artifact.manifest.selection.threads if artifact.manifest.selection else None
    return (min(judged, cores()), "as its proof was judged") if judged else (cores(), "every core")
