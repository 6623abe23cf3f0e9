"""Which entry a reference means, and which of them a host serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import HoneError, StoreError, UnavailableError, did_you_mean
from hone.names import shown
from hone.steps.ready import missing_here
from hone.store.entry import Entry, entries, models_dir
from hone.store.registry import is_meant, meaning

LONGEST = 100
"""Of a misspelled name: the nearest is looked for with so many of its characters."""


@dataclass(frozen=True)
class Choice:
    """The artifact that a host serves, and why: one line an entry that was passed over."""

    entry: Entry
    reason: str
    passed_over: tuple[str, ...] = ()


def resolve(reference: str, packed: Sequence[Entry] | None = None) -> Entry:
    """Return the entry that a reference names.

    Args:
        reference: `NAME` or `NAME:latest` (the winner of the newest run), `NAME:VARIANT` (of the newest run that has
            it), `NAME:VERSION`, a unique beginning of a version, or `NAME@ALIAS` of the registry.
        packed: look among these only, in the order of `entries`; a bento holds no more than it was built with.

    Raises:
        StoreError: nothing, or more than one thing, answers to the reference.
    """
    if "@" in reference and packed is None:
        return _aliased(*reference.split("@", 1))
    name, _, version = reference.partition(":")
    candidates = entries(name) if packed is None else [entry for entry in packed if entry.name == name]
    if not candidates:
        if packed is not None and "@" in reference:
            raise StoreError(f"{shown(reference)}: no registry is packed here; name a version of {_tags(packed)}")
        if packed is not None:
            raise StoreError(f"no model '{name}' is packed here; there is {_tags(packed)}")
        known = {entry.name for entry in entries()}
        hint = did_you_mean(name[:LONGEST], known) or "; run hone optimize first"
        raise StoreError(f"no model {shown(name)} in {models_dir()}{hint}")
    if version in ("", "latest"):
        return _newest_winner(name, candidates)
    for entry in candidates:
        if entry.version == version or (entry.artifact and entry.artifact.manifest.variant == version):
            return entry
    matches = [entry for entry in candidates if entry.version.startswith(version)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(entry.version for entry in matches[:3])
        more = f" and {len(matches) - 3} more" if len(matches) > 3 else ""
        raise StoreError(f"{shown(reference)} is ambiguous: {some}{more}")
    if packed is not None:
        raise StoreError(f"no version {shown(version)} of '{name}' is packed here; there is {_tags(packed)}")
    known = {entry.version for entry in candidates}
    raise StoreError(f"no version {shown(version)} of '{name}'{did_you_mean(version[:LONGEST], known)}")


def names_version(reference: str) -> bool:
    """Return whether a reference means one artifact, whatever run is the newest."""
    return "@" in reference or reference.partition(":")[2] not in ("", "latest")


def pinned(reference: str) -> str:
    """Return the tag that `NAME@ALIAS` means now; any other reference as it is.

    Raises:
        StoreError: as `resolve`.
    """
    return resolve(reference).tag if "@" in reference else reference


def _aliased(name: str, alias: str) -> Entry:
    """Return what an alias means, when that is still stored with the content that it was given for."""
    pointer = meaning(name, alias)
    for entry in entries(name):
        if entry.version == pointer.version:
            if is_meant(pointer, entry):
                return entry
            raise StoreError(
                f"{name}@{alias} is {entry.tag}, but what is stored under that tag now is something else; "
                f"promote a version again: hone registry promote {name}:VERSION"
            )
    raise StoreError(f"{name}@{alias} is {name}:{pointer.version}, which is not in {models_dir()}")


def _tags(found: Sequence[Entry]) -> str:
    return ", ".join(entry.tag for entry in found) or "nothing"


def _newest_winner(name: str, candidates: list[Entry]) -> Entry:
    for entry in candidates:
        if entry.eligible:
            return entry
    met = "is proven to meet" if candidates[0].undecided else "met"
    raise StoreError(f"no stored variant of '{name}' {met} its budget; name one explicitly: {candidates[0].tag}")


def serving_set(reference: str, packed: Sequence[Entry] | None = None, least: int = 1) -> list[Entry]:
    """Return the artifacts that a host may have to choose from, best first.

    A NAME stands for those of the newest run that met the budget, down to the first that needs no special hardware,
    which every host can run, and to at least `least` of them; a reference with a version stands for that one alone.
    `packed` as in `resolve`.

    Raises:
        StoreError: as `resolve`.
    """
    winner = resolve(reference, packed)
    if names_version(reference):
        return [winner]
    name = winner.name
    chosen: list[Entry] = []
    portable = False
    for entry in entries(name) if packed is None else packed:
        if entry.name != name or entry.run != winner.run or not entry.eligible or entry.artifact is None:
            continue
        chosen.append(entry)
        portable = portable or _is_portable(entry.artifact)
        if portable and len(chosen) >= least:
            break
    return chosen


def _is_portable(artifact: Artifact) -> bool:
    """True when any host with ONNX Runtime can run the artifact."""
    return artifact.runtime == "onnx" and not artifact.manifest.requires


def choose(candidates: list[Entry]) -> Choice:
    """Return the best entry that this host can run, and why the better ones were passed over.

    Raises:
        StoreError: none can be run here; the message says why for each.
    """
    passed_over: list[str] = []
    for entry in candidates:
        problem = host_problem(entry)
        if problem:
            passed_over.append(f"{entry.tag}: {problem}")
            continue
        place = "the winner of its run" if entry.rank == 0 else f"rank {entry.rank + 1} of its run"
        if not entry.eligible:
            why = "is not proven to meet its budget" if entry.undecided else "missed its budget"
            return Choice(entry, f"named explicitly; it {why}", tuple(passed_over))
        if len(candidates) == 1:
            return Choice(entry, f"{place}, the only candidate")
        return Choice(entry, f"{place}, the best that this host can run", tuple(passed_over))
    raise StoreError("no stored variant can run on this host: " + "; ".join(passed_over))


def host_problem(entry: Entry) -> str:
    """Return why this host can't run an entry, or an empty string."""
    if entry.artifact is None:
        return entry.error
    try:
        runtime = runtimes.runtime_class(entry.artifact.runtime)
        runtime.require()
    except UnavailableError as error:
        return error.reason
    except HoneError as error:
        return str(error)
    return runtime.check_host(entry.artifact) or missing_here(entry.artifact)
