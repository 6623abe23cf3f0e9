"""The store: artifacts in the BentoML model store, one entry an artifact.

An entry's tag is `NAME:VARIANT-RUN`: the recipe's name, the variant and the run of `hone optimize` that measured it.
Entries never change; a new run adds new ones. `NAME:latest` is the winner of the newest run; `NAME@champion` is what
was promoted (`hone.store.registry`).
"""

from hone.store.changes import add, put, remove, replacing
from hone.store.choice import Choice, choose, host_problem, names_version, pinned, resolve, serving_set
from hone.store.entry import Entry, entries, models_dir

__all__ = [
    "Choice",
    "Entry",
    "add",
    "choose",
    "entries",
    "host_problem",
    "models_dir",
    "names_version",
    "pinned",
    "put",
    "remove",
    "replacing",
    "resolve",
    "serving_set",
]
