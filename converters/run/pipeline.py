"""Run a plan: cached, in worker processes, each result checked before it counts."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.cache import cache_dir, check_own
from hone.errors import ArtifactError
from hone.hardware import tool_versions
from hone.recipe import LoadedRecipe
from hone.userload import code_digest

from .pass_task import PassTask, run_pass
from .plan import Node, Plan
from .prepare import Prepared
from .workers import Failure, Workers

STALE_SECONDS = 24 * 3600


@dataclass
class Outcome:
    """What became of one node of the plan."""

    node: Node
    artifact: Artifact | None = None
    failure: Failure | None = None
    cached: bool = False


@dataclass
class Progress:
    """How a run reports; the command line draws it. `total` and `done` count passes."""

    on_start: Callable[[str], None] = field(default=lambda _: None)
    on_message: Callable[[str], None] = field(default=lambda _: None)
    on_done: Callable[[str, bool], None] = field(default=lambda *_: None)


class Pipeline:
    """Runs the passes of a plan from a prepared source."""

    def __init__(self, loaded: LoadedRecipe, prepared: Prepared, workers: Workers, *, force: bool = False) -> None:
        self._loaded = loaded
        self._prepared = prepared
        self._workers = workers
        self._force = force
        self._cache = cache_dir() / "passes"
        self._ran: set[Path] = set()
        """Results of this run: a plan that is run after another takes them as they are."""
        self._cache.mkdir(parents=True, exist_ok=True)
        drop_stale(self._cache)

    def run(self, plan: Plan, progress: Progress) -> dict[int, Outcome]:
        """Run every node whose parent succeeded; return outcomes by `id(node)`.

        A pass that fails takes the variants that go through it with it, and no others.
        """
        source = Artifact.open(self._prepared.source, verify=False)
        outcomes: dict[int, Outcome] = {}
        waiting = list(plan.nodes)
        running: dict[Any, Node] = {}
        limit = self._workers.jobs
        while waiting or running:
            for node in [node for node in waiting if node.parent is None or id(node.parent) in outcomes]:
                if len(running) >= limit:
                    break
                waiting.remove(node)
                future = self._start(node, source, outcomes, progress)
                if future is not None:
                    running[future] = node
            beside = len(running) > 1
            for future in self._workers.wait(running):
                node = running.pop(future)
                if beside and self._workers.was_killed(future):
                    # The worker that died took its neighbors' passes with it; run alone, each shows whose fault it was.
                    waiting.append(node)
                    limit = 1
                    continue
                outcomes[id(node)] = self._finish(node, future)
                progress.on_done(node.title, False)
        return outcomes

    def _start(self, node: Node, source: Artifact, outcomes: dict[int, Outcome], progress: Progress) -> Any | None:
        """Submit a node's pass, or settle it at once: from the cache, or because its parent failed."""
        parent = outcomes[id(node.parent)] if node.parent else Outcome(node, source)
        if parent.artifact is None:
            outcomes[id(node)] = Outcome(node, failure=parent.failure)
            progress.on_done(node.title, False)
            return None
        target = self._cache / self._key(node, parent.artifact)
        before = target not in self._ran
        cached = None if self._force and before else self._cached(target, progress)
        if cached:
            outcomes[id(node)] = Outcome(node, cached, cached=before)
            progress.on_done(node.title, before)
            return None
        progress.on_start(node.title)
        return self._workers.call(
            run_pass,
            PassTask(
                node.step.name,
                node.step.options,
                parent.artifact.path,
                target,
                self._loaded.path,
                self._prepared.rows,
            ),
        )

    def _finish(self, node: Node, future: Any) -> Outcome:
        result = self._workers.result(future)
        if isinstance(result, Failure):
            return Outcome(node, failure=result)
        self._ran.add(result)
        return Outcome(node, Artifact.open(result))

    @staticmethod
    def _cached(target: Path, progress: Progress) -> Artifact | None:
        if not target.exists():
            return None
        try:
            return Artifact.open(check_own(target))
        except ArtifactError as error:
            progress.on_message(f"cache entry dropped: {error}")
            return None

    def _key(self, node: Node, parent: Artifact) -> str:
        """The identity of a pass's result: everything that can change what it writes."""
        definition = node.step.definition
        recipe = self._loaded.recipe
        content: dict[str, Any] = {
            "pass": definition.name,
            "revision": definition.revision,
            "options": node.step.options,
            "parent": parent.digest,
            "tools": tool_versions(*definition.tools),
        }
        if {"calibration", "sample"} & set(definition.needs):
            content["calibration"] = self._prepared.calibration_digest
        if "train" in definition.needs:
            content["train"] = code_digest(recipe.train, self._loaded.root) if recipe.train else None
        options = definition.options.model_validate(node.step.options)
        if decided := options.decided_here():
            content["decided"] = decided
        if references := options.references():
            content["code"] = [code_digest(reference, self._loaded.root) for reference in references]
        if not recipe.rows_may_be_copied:
            content["example"] = "made up"
        if "quality" in definition.needs:
            content["quality"] = [recipe.quality.model_dump(mode="json"), recipe.budget.quality_drop]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def drop_stale(folder: Path) -> None:
    """Remove half-written folders that a killed run left more than a day ago."""
    for path in folder.glob(".*.partial"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
