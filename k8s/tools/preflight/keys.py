"""The secrets that pods mount: are they there, and do their keys let in whom they should, and nobody else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

import yaml

from hone.records import Finding

from ..cluster import Cluster, containers

KEYS = "keys.yaml"
GUESSED = ("", "admin", "changeme", "change-me", "demo", "example", "hone", "key", "password", "secret", "test")
"""Keys that anybody tries first; what examples on the web have."""

SHA256 = re.compile("[0-9a-f]{64}")


def secrets(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """Every secret that a pod can't start without must be there; one of API keys must hold a key that isn't guessed."""
    names = {
        volume["secret"]["secretName"]
        for item in objects
        if containers(item)
        for volume in item["spec"]["template"]["spec"].get("volumes", [])
        if "secret" in volume and not volume["secret"].get("optional")
    }
    return [_secret(cluster, namespace, name) for name in sorted(names)]


def _secret(cluster: Cluster, namespace: str, name: str) -> Finding:
    make = "hone keys new NAME --file keys.yaml && "
    make += f"kubectl -n {namespace} create secret generic {name} --from-file=keys.yaml"
    try:
        found = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except LookupError:
        return Finding("secret", "missing", f"no '{name}' in '{namespace}'", make)
    data = found.get("data") or {}
    if KEYS not in data:
        if name != "hone-api-keys":
            return Finding("secret", "ok", f"'{name}' is there")
        return Finding("secret", "missing", f"'{name}' holds no {KEYS}: {', '.join(data) or 'nothing'}", make)
    problem = keys_problem(data[KEYS])
    if problem:
        again = f"kubectl -n {namespace} delete secret {name} && {make}"
        return Finding("secret", "missing", f"'{name}' is there, but {problem}", again)
    return Finding("secret", "ok", f"'{name}' is there, its keys can be used")


def keys_problem(encoded: str) -> str:
    """Return why the keys of a secret let nobody in, or anybody; empty when they are in order.

    Args:
        encoded: a key file as a secret has it, in base64.
    """
    try:
        content = yaml.safe_load(base64.b64decode(encoded, validate=True))
        hashes = [entry["sha256"] for entry in content["keys"]]
    except (binascii.Error, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return "it is no file of keys: no pod would start"
    if not hashes:
        return "it lists no key: nobody may call"
    if not all(isinstance(value, str) and SHA256.fullmatch(value) for value in hashes):
        return "a key is no hash: hone keys new writes them"
    known = {hashlib.sha256(word.encode()).hexdigest(): word for word in GUESSED}
    guessed = [known[value] for value in hashes if value in known]
    if guessed:
        return f"one of its keys is '{guessed[0]}', which anybody guesses"
    if any(len(set(value)) == 1 for value in hashes):
        return "one of its hashes is an example's"
    return ""
