"""From a stored model to a runtime that is checked, warm and timed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml

from hone import store
from hone.artifact import Artifact
from hone.errors import ArtifactError, GoldenError, StoreError
from hone.golden.rows import GoldenRows
from hone.plan import Plan
from hone.runtimes.base import Runtime
from hone.signature import Signature
from hone.steps.pipeline import ReadySteps
from hone.steps.ready import offered_by, ready_steps
from hone.store.trust import Policy, open_to_run

from ..settings import Settings
from .calibration import calibrate
from .examples import example_inputs
from .golden import compare, golden_rows
from .planned import remarks, run_as_planned
from .prepared import Prepared
from .ranking import RANKED, ranked, to_rank

logger = logging.getLogger("hone.serving")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to answer.

    Attributes:
        entry: where it came from.
        artifact: verified.
        prepared: its runtime, and how to run it.
        golden: rows with the answers of its proof, where it has some.
        steps: from what callers have to its tensors and back, where it has some.
        others: what else may be served in its place, best first.
    """

    entry: store.Entry
    artifact: Artifact
    prepared: Prepared
    golden: GoldenRows | None = None
    others: tuple[store.Entry, ...] = ()
    steps: ReadySteps | None = None

    @cached_property
    def offered(self) -> Signature:
        """What callers give and get."""
        return offered_by(self.artifact)

    @property
    def runtime(self) -> Runtime:
        return self.prepared.runtime

    @property
    def plan(self) -> Plan:
        return self.prepared.plan


def candidates(reference: str, module_file: str = "", settings: Settings | None = None) -> list[store.Entry]:
    """Return the entries a service may serve, best first.

    Args:
        reference: NAME, NAME:VARIANT or a full tag; in a bento also nothing, which stands for all that is packed.
        module_file: the file of the service's module, from which the bento that holds it is found.
        settings: of a service that is about to load one: more are returned where they are to be ranked anew.

    Raises:
        StoreError: nothing in the store answers to the reference; in a bento, nothing that is packed.
    """
    there = packed(module_file)
    if reference:
        found = store.serving_set(reference, there)
        if settings is not None and there is None and to_rank(found[0], settings):
            return store.serving_set(reference, None, RANKED)
        return found
    if not there:
        raise StoreError("which model? Set HONE_MODEL to NAME, NAME:VARIANT or a full tag")
    order = packed_tags(module_file) or []
    return sorted(there, key=lambda entry: order.index(entry.tag))


def packed(module_file: str) -> list[store.Entry] | None:
    """Return the entries that the surrounding bento was built with, in the order of `store.entries`.

    What was tested is what is served: within a bento nothing else is there, whatever the store of the host holds.
    None when the code runs from a checkout.

    Raises:
        StoreError: one of them is in the store no more.
    """
    tags = packed_tags(module_file)
    if tags is None:
        return None
    found = [entry for name in dict.fromkeys(_name(tag) for tag in tags) for entry in store.entries(name)]
    missing = set(tags) - {entry.tag for entry in found}
    if missing:
        raise StoreError(f"{', '.join(sorted(missing))}: of this bento, but not in {store.models_dir()}")
    return [entry for entry in found if entry.tag in tags]


def packed_tags(module_file: str) -> list[str] | None:
    """Return the tags that the surrounding bento records, in its order; None when the code runs from a checkout."""
    for folder in Path(module_file).resolve().parents if module_file else ():
        record = folder.parent / "bento.yaml"
        if folder.name == "src" and record.is_file():
            content = yaml.safe_load(record.read_text()) or {}
            models = [
                *content.get("models", []),
                *(m for s in content.get("services", []) for m in s.get("models", [])),
            ]
            return list(dict.fromkeys(str(model["tag"]) for model in models))
    return None


def _name(tag: str) -> str:
    return tag.partition(":")[0]


def load(entries: list[store.Entry], settings: Settings, folder: Path | None = None) -> LoadedModel:
    """Load the best entry that this host can run, and say in the log which one and why.

    One that is corrupt, may not run here, or answers here otherwise than in its proof, is passed over, loudly, when
    there is another; when it is the last one, its error is raised.

    Args:
        entries: best first; those of a run may be ranked anew where this host isn't the proof's.
        settings: of the service.
        folder: that the workers of a server share: they rank once.

    Raises:
        ArtifactError: the only artifact is corrupt, may not run here, or answers otherwise (GoldenError).
        StoreError: none can run on this host.
    """
    entries = ranked(entries, settings, folder)
    remaining, last = list(entries), None
    while True:
        choice = _choose(remaining, last)
        for reason in choice.passed_over:
            logger.warning("passed over %s", reason)
        try:
            model = replace(_load_entry(choice.entry, settings), others=tuple(entries))
        except ArtifactError as error:
            last = error
            remaining.remove(choice.entry)
            if not remaining:
                raise
            logger.error("passed over %s: %s", choice.entry.tag, error)
            continue
        given = f"; {remarks(model.plan)}" if model.prepared.given else ""
        logger.info(
            "serving %s: %s; %s, %s%s",
            choice.entry.tag, choice.reason, model.runtime.describe(), model.plan.describe(), given,
        )  # fmt: skip
        return model


def load_or_spare(entries: list[store.Entry], settings: Settings, folder: Path | None, module_file: str) -> LoadedModel:
    """Load as `load`; where all answer otherwise than in their proofs, what else of their run there is.

    That is where a service of a store was given a NAME, not a version of it: a bento has what it was built with.
    """
    try:
        return load(entries, settings, folder)
    except GoldenError as error:
        name, tried = entries[0].name, {entry.tag for entry in entries}
        if name not in (settings.model, *settings.more_models) or packed(module_file) is not None:
            raise
        spare = [e for e in store.serving_set(name, None, len(store.entries(name))) if e.tag not in tried]
        if not spare:
            raise
        logger.error("passed over what was to be served: %s", error)
        return load(spare, settings, folder)


def _choose(remaining: list[store.Entry], last: ArtifactError | None) -> store.Choice:
    """Return the best that is left; when none can run, the error of the one that could says more."""
    try:
        return store.choose(remaining)
    except StoreError:
        if last is not None:
            raise last from None
        raise


def _load_entry(entry: store.Entry, settings: Settings) -> LoadedModel:
    artifact = open_to_run(entry, Policy.of(code=settings.trust_code, keys=settings.trusted_keys))
    golden, steps = golden_rows(entry.tag, artifact), ready_steps(artifact)
    example, plan = example_inputs(artifact), settings.given_plan
    if plan is not None and plan.digest == artifact.digest:
        prepared = run_as_planned(artifact, example, plan)
    else:
        prepared = calibrate(entry.tag, artifact, example, settings)
    try:
        compare(entry.tag, artifact, prepared.runtime, prepared.plan, golden, steps)
    except ArtifactError:
        prepared.runtime.close()
        raise
    return LoadedModel(entry, artifact, prepared, golden, steps=steps)
