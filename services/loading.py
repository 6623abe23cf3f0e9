"""From a stored model to a runtime that is checked, warm and timed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from hone import runtimes, store
from hone.artifact import Artifact
from hone.errors import ArtifactError, HoneError
from hone.hardware import cores
from hone.runtimes.base import Runtime
from services.settings import Settings
from services.tensors import parse_inputs

logger = logging.getLogger("hone.serving")

EXAMPLE = "example.json"
INLINE_SECONDS = 0.002
"""A full batch faster than this runs on the event loop: handing it to a thread and back costs more than the pause."""

THREADS_GAIN = 1.25
"""Several threads are used when they make a full batch at least this much faster."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to answer.

    Attributes:
        entry: where it came from.
        artifact: verified.
        runtime: loaded and warm.
        batch_seconds: what a full batch took, warm.
        threads: of one inference.
    """

    entry: store.Entry
    artifact: Artifact
    runtime: Runtime
    batch_seconds: float
    threads: int

    @property
    def runs_inline(self) -> bool:
        return self.batch_seconds < INLINE_SECONDS


def candidates(reference: str, module_file: str = "") -> list[store.Entry]:
    """Return the entries a service may serve, best first.

    Inside a built bento these are exactly the tags that its `bento.yaml` records: what was tested is what is served,
    whatever else the store of the host holds.

    Args:
        reference: NAME, NAME:VARIANT or a full tag.
        module_file: the file of the service's module, from which the bento that holds it is found.

    Raises:
        StoreError: nothing in the store answers to the reference.
    """
    name = reference.partition(":")[0]
    pinned = _pinned_tags(name, Path(module_file)) if module_file else []
    if pinned:
        return sorted((store.resolve(tag) for tag in pinned), key=lambda entry: entry.rank)
    if ":" in reference and not reference.endswith(":latest"):
        return [store.resolve(reference)]
    return store.serving_set(name)


def _pinned_tags(name: str, module_file: Path) -> list[str]:
    """Return the tags of a model that the surrounding bento records; none when the code runs from a checkout."""
    for folder in module_file.resolve().parents:
        record = folder.parent / "bento.yaml"
        if folder.name == "src" and record.is_file():
            content = yaml.safe_load(record.read_text()) or {}
            models = [
                *content.get("models", []),
                *(m for s in content.get("services", []) for m in s.get("models", [])),
            ]
            tags = dict.fromkeys(str(model["tag"]) for model in models)
            return [tag for tag in tags if tag.partition(":")[0] == name]
    return []


def load(entries: list[store.Entry], settings: Settings) -> LoadedModel:
    """Load the best entry that this host can run, and say in the log which one and why.

    A corrupt artifact is passed over, loudly, when there is another; when it is the last one, its error is raised.

    Raises:
        ArtifactError: the only artifact is corrupt.
        StoreError: none can run on this host.
    """
    remaining = list(entries)
    while True:
        choice = store.choose(remaining)
        for reason in choice.passed_over:
            logger.warning("passed over %s", reason)
        try:
            model = _load_entry(choice.entry, settings)
        except ArtifactError as error:
            remaining.remove(choice.entry)
            if not remaining:
                raise
            logger.error("passed over %s: %s", choice.entry.tag, error)
            continue
        logger.info(
            "serving %s: %s; %s, threads %d, batches of up to %d rows%s",
            choice.entry.tag,
            choice.reason,
            model.runtime.describe(),
            model.threads,
            settings.max_batch_rows,
            "" if model.artifact.signature.batchable else " (its signature can't be batched: one request at a time)",
        )
        return model


def _load_entry(entry: store.Entry, settings: Settings) -> LoadedModel:
    """Load an entry with the thread count that was set, or else with the one that serves best here.

    More threads answer one batch sooner, but they spin between batches and take cores from the event loop and the
    other workers. So one thread is kept unless it is slow and all of this worker's cores are much faster.
    """
    artifact = entry.opened()
    share = max(1, cores() // settings.workers)
    runtime = runtimes.load(artifact, settings.threads or 1)
    seconds = _warm_up(runtime, artifact, settings.max_batch_rows)
    if settings.threads or share == 1 or seconds < INLINE_SECONDS:
        return LoadedModel(entry, artifact, runtime, seconds, settings.threads or 1)
    wide = runtimes.load(artifact, share)
    wide_seconds = _warm_up(wide, artifact, settings.max_batch_rows)
    if wide_seconds * THREADS_GAIN > seconds:
        wide.close()
        return LoadedModel(entry, artifact, runtime, seconds, 1)
    runtime.close()
    return LoadedModel(entry, artifact, wide, wide_seconds, share)


def example_inputs(artifact: Artifact) -> dict[str, np.ndarray]:
    """Return real rows where the artifact keeps some (`example.json`), else zeros of the signature."""
    import orjson

    file = artifact.path / EXAMPLE
    if file.is_file() and EXAMPLE in artifact.manifest.files:
        try:
            return parse_inputs(orjson.loads(file.read_bytes())["inputs"], artifact.signature)
        except (HoneError, ValueError, KeyError) as error:
            logger.warning("%s: not usable as an example: %s", file, error)
    return {spec.name: spec.example() for spec in artifact.signature.inputs}


def _warm_up(runtime: Runtime, artifact: Artifact, rows: int) -> float:
    """Run until kernels are chosen and memory is allocated; return the seconds of a full batch."""
    example = example_inputs(artifact)
    if artifact.signature.batchable:
        have = len(next(iter(example.values())))
        index = np.arange(rows) % have
        full = {name: array[index] for name, array in example.items()}
        single = {name: array[:1] for name, array in example.items()}
    else:
        full = single = example
    try:
        for _ in range(3):
            runtime.run(single)
        timings = []
        for _ in range(5):
            started = time.perf_counter()
            runtime.run(full)
            timings.append(time.perf_counter() - started)
    except Exception as error:
        raise ArtifactError(f"{artifact.path}: loads but fails on example rows: {error}") from error
    return sorted(timings)[len(timings) // 2]
