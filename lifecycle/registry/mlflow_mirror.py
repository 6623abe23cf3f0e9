"""The registry in MLflow: runs with what was measured, versions with their whole folder, the same aliases.

The file beside the store stays what services follow; MLflow is where others look, and how versions reach another host.
What comes from there is an archive like any other: hashes and trust are checked before it is in the store.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hone import store
from hone.artifact import MANIFEST, Manifest
from hone.errors import StoreError
from hone.files import hash_file
from hone.store import archive
from hone.store.mlflow_client import VERSION, Place, asked
from hone.store.registry import ALIASES, Pointer, Registry, change, registered
from hone.store.trust import Admission, Policy

from .history import entered

HASH, RUN, NOTE = "hone.manifest", "hone.run", "note."


def push(name: str, place: Place, report: Path | None = None) -> list[str]:
    """Bring MLflow up to what is registered here; return a line for each thing that was written.

    Args:
        name: of the model.
        place: of MLflow.
        report: folder of a `hone optimize`; what lies in it goes to the newest run.

    Raises:
        StoreError: no such model.
        ArtifactError: a stored file is corrupt.
        HoneError: MLflow can't be reached, or refuses.
    """
    found = store.entries(name) or [store.resolve(name)]
    with entered("sync", name) as details:
        lines = asked(place, lambda client: _push(client, name, found, place, report))
        details["pushed"] = "; ".join(lines)
    return lines


def _push(client: Any, name: str, found: Sequence[store.Entry], place: Place, report: Path | None) -> list[str]:
    experiment = client.get_experiment_by_name(f"hone/{name}")
    number = (
        experiment.experiment_id if experiment else client.create_experiment(f"hone/{name}", place.artifacts or None)
    )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    there = _versions(client, name)
    known, lines = registered(name), []
    for entry in found:
        entry.opened()
        if entry.version not in there:
            run = _run(client, number, entry)
            client.log_artifacts(run.info.run_id, str(entry.path), f"versions/{entry.version}")
            tags = {VERSION: entry.version, HASH: hash_file(entry.path / MANIFEST)}
            source = f"{run.info.artifact_uri}/versions/{entry.version}"
            there[entry.version] = client.create_model_version(name, source, run_id=run.info.run_id, tags=tags)
            lines.append(f"version {entry.tag}")
        _push_notes(client, name, there[entry.version], known.notes.get(entry.version, {}))
    if report is not None and found[0].run:
        client.log_artifacts(_run(client, number, found[0]).info.run_id, str(report), "report")
        lines.append(f"report {report}")
    return lines + _push_aliases(client, name, known, there)


def _push_notes(client: Any, name: str, version: Any, notes: Mapping[str, str]) -> None:
    before = {key.removeprefix(NOTE): text for key, text in version.tags.items() if key.startswith(NOTE)}
    for key in before.keys() - notes.keys():
        client.delete_model_version_tag(name, version.version, f"{NOTE}{key}")
    for key, text in notes.items():
        if before.get(key) != text:
            client.set_model_version_tag(name, version.version, f"{NOTE}{key}", text)


def _push_aliases(client: Any, name: str, known: Registry, there: Mapping[str, Any]) -> list[str]:
    set_there = dict(client.get_registered_model(name).aliases)
    lines = []
    for alias in ALIASES:
        pointer = known.aliases.get(alias)
        if pointer is None:
            if alias in set_there:
                client.delete_registered_model_alias(name, alias)
                lines.append(f"no {name}@{alias}")
        elif pointer.version not in there:
            raise StoreError(f"{name}@{alias} is {pointer.version}, which is neither stored here nor in MLflow")
        elif str(set_there.get(alias)) != str(there[pointer.version].version):
            client.set_registered_model_alias(name, alias, there[pointer.version].version)
            lines.append(f"{name}@{alias} is {name}:{pointer.version}")
    return lines


def _versions(client: Any, name: str) -> dict[str, Any]:
    """Return MLflow's versions of a model that Hone put there, by Hone's version."""
    found = client.search_model_versions(f"name = '{name}'")
    return {one.tags[VERSION]: one for one in found if VERSION in one.tags}


def _run(client: Any, experiment: str, entry: store.Entry) -> Any:
    """Return MLflow's run for the run that made an entry, with the entry's figures in it."""
    manifest = entry.opened(verify=False).manifest
    name = entry.run or entry.version
    found = client.search_runs([experiment], f"tags.`{RUN}` = '{name}'", max_results=1)
    run = found[0] if found else client.create_run(experiment, run_name=name, tags={RUN: name})
    for key, value in _parameters(manifest).items():
        if key not in run.data.params:
            client.log_param(run.info.run_id, key, value)
    for key, number in _figures(manifest).items():
        client.log_metric(run.info.run_id, f"{manifest.variant or 'model'}.{key}", number)
    if not found:
        client.set_terminated(run.info.run_id)
    return client.get_run(run.info.run_id)


def _parameters(manifest: Manifest) -> dict[str, str]:
    selection = manifest.selection
    told = (
        {"objective": selection.objective, "batch": selection.batch, "threads": selection.threads} if selection else {}
    )
    data = {f"data.{record.role}": f"{record.source} {record.sha256[:16]}" for record in manifest.data}
    return {key: str(value) for key, value in {**told, **data}.items() if value is not None}


def _figures(manifest: Manifest) -> dict[str, float]:
    figures = {"size_mb": manifest.size_bytes / 1e6}
    measured, selection = manifest.measurements, manifest.selection
    if measured is not None:
        figures |= {"quality": measured.quality.value, "peak_rss_mb": measured.peak_rss_mb, "load_ms": measured.load_ms}
        for latency in measured.latency:
            figures[f"p50_ms.batch{latency.batch}.threads{latency.threads}"] = latency.p50
    if selection is not None:
        figures["rank"] = float(selection.rank)
        if selection.loss_upper is not None:
            figures["loss_upper"] = selection.loss_upper
    return figures


def pull(name: str, place: Place, policy: Policy) -> list[str]:
    """Take over what the aliases mean in MLflow, and the versions that they mean and this store lacks.

    Args:
        policy: says which artifacts may come in, as for an import.

    Returns:
        A line for each thing that changed.

    Raises:
        StoreError: no such model there, or a version differs from the one of its tag here.
        ArtifactError: what was downloaded is corrupt, or may not come in.
        HoneError: MLflow can't be reached, or refuses.
    """
    with entered("sync", name) as details:
        lines = asked(place, lambda client: _pull(client, name, policy))
        details["pulled"] = "; ".join(lines)
    return lines


def _pull(client: Any, name: str, policy: Policy) -> list[str]:
    if not client.search_registered_models(f"name = '{name}'"):
        raise StoreError(f"MLflow has no model '{name}'; hone registry sync {name} puts it there")
    versions = {str(one.version): one for one in _versions(client, name).values()}
    aliases: dict[str, Pointer | None] = dict.fromkeys(ALIASES)
    lines = []
    for alias, number in client.get_registered_model(name).aliases.items():
        meant = versions.get(str(number))
        if alias not in ALIASES:
            continue
        if meant is None:
            raise StoreError(f"MLflow's {name}@{alias} is its version {number}, which Hone did not put there")
        pointer = Pointer(version=meant.tags[VERSION], manifest=meant.tags[HASH])
        lines += _fetch(client, name, meant, pointer, policy)
        aliases[alias] = pointer
    before = registered(name).aliases
    moved = [alias for alias in ALIASES if aliases[alias] != before.get(alias)]
    if moved:
        change(name, lambda known: known.pointing(aliases))
    told = {alias: aliases[alias] for alias in moved}
    return lines + [
        f"{name}@{alias} is {name}:{to.version}" if to else f"no {name}@{alias}" for alias, to in told.items()
    ]


def _fetch(client: Any, name: str, meant: Any, pointer: Pointer, policy: Policy) -> list[str]:
    """Bring a version into the store when it isn't there."""
    from mlflow.artifacts import download_artifacts

    tag = f"{name}:{pointer.version}"
    here = next((entry for entry in store.entries(name) if entry.version == pointer.version), None)
    if here is not None:
        if hash_file(here.path / MANIFEST) != pointer.manifest:
            raise StoreError(f"{tag} is stored here with other content than in MLflow; remove one of them")
        return []
    with TemporaryDirectory(prefix="hone-mlflow-") as scratch:
        place = client.get_model_version_download_uri(name, meant.version)
        got = Path(download_artifacts(artifact_uri=place, dst_path=scratch))
        if hash_file(got / MANIFEST) != pointer.manifest:
            raise StoreError(f"{tag}: MLflow's {MANIFEST} is not the one that was registered")
        packed = Path(scratch) / "version.tar.gz"
        with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
            first = [file for file in archive.RECORDS if (got / file).is_file()]
            rest = sorted(p.relative_to(got).as_posix() for p in got.rglob("*") if p.is_file())
            for file in (*first, *(one for one in rest if one not in first)):
                tar.add(got / file, file, recursive=False)
        entry = archive.import_archive(packed, admit=Admission(policy, packed))
    if entry.tag != tag:
        store.remove(entry)
        raise StoreError(f"MLflow's {tag} holds {entry.tag}")
    return [f"version {tag}"]
