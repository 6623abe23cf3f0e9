"""The commands that the documents show, and a scratch project to run them in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hone.services.launch import end, free_port
from tests.servers import ROOT, wait_ready

DOCS = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", *DOCS)
"""The pages whose commands tests/repository/test_readme.py runs; tests of their own run those of k8s/."""


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """Return the shell commands that a page shows, whole, without comments."""
    found = []
    for block in blocks(page, "(?:bash|sh|shell|console)"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"(^|\s)#.*", "", line).strip()
            if command:
                found.append(re.sub(r"\s+", " ", command))
    return found


def written_files(page: str) -> dict[str, dict[str, str]]:
    """Return the Python files that a page writes out, by section and path: a paragraph before each begins with it."""
    sections = re.split(r"^## (.+)$", (ROOT / page).read_text(), flags=re.MULTILINE)[1:]
    block = re.compile(r"^`([\w/]+\.py)`(?:.+\n)+\n```python\n((?:.*\n)*?)```$", re.MULTILINE)
    return {title: dict(block.findall(text)) for title, text in zip(sections[::2], sections[1::2], strict=True)}


def table_rows(page: str, heading: str) -> dict[str, str]:
    """Return the rows of the table under a heading: what stands in the first column, and in the second."""
    section = (ROOT / page).read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = (re.split(r"(?<!\\)\|", line)[1:3] for line in section.splitlines() if line.startswith("|"))
    return {first.strip(): second.strip() for first, second in rows if first.strip(" -")}


@dataclass
class Project:
    """A folder in which commands run with a model store and a pass cache of their own.

    Attributes:
        folder: of the project.
        port: takes the place of 3000.
        names: what takes the place of names in the documents.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        home = self.folder / "home"
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "BENTOML_HOME": str(home / "bentoml"),
            "HONE_CACHE": str(home / "cache"),
        }

    def command(self, shown: str) -> str:
        """Return a command as it is run here."""
        text = re.sub(r"\b3000\b", str(self.port), shown)
        for name, own in self.names.items():
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", own, text)
        return text

    def run(self, shown: str, status: int = 0) -> str:
        """Run a command by a shell and return what it printed; it must end with the status."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.command(shown)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{shown}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def serving(self, shown: str, scheme: str = "http") -> Iterator[None]:
        """Run a command that serves, on the project's port, until the end of the block."""
        log = self.folder / "serve.log"
        command = f"exec env {self.command(shown)} --port {self.port}"  # variables may stand before it
        with log.open("w") as stream:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment, stdout=stream, stderr=stream
            )
        try:
            with httpx.Client(base_url=f"{scheme}://localhost:{self.port}", verify=False) as client:
                wait_ready(client, process, log, 120)
            yield
        finally:
            end(process)
