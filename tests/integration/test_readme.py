"""The README's own example, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from hone.cli import cli
from services.launch import running

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_readme_example_is_optimized_and_served(tmp_path: Path) -> None:
    (code,), (recipe,) = blocks("python"), blocks("yaml")
    (tmp_path / "wine.py").write_text(code)
    (tmp_path / "recipe.yaml").write_text(recipe)
    done = subprocess.run(
        [sys.executable, "-c", "from hone.cli import main; main()", "optimize", "recipe.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "wine" / "report.html").exists()
    (request,) = re.findall(r"-d '(\{.*\})'", README.read_text())
    with running("wine") as url:
        answer = httpx.post(f"{url}/predict", content=request, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert len(answer.json()["outputs"]["scores"][0]) == 3
    assert answer.json()["model"].startswith("wine:")


@pytest.mark.parametrize("command", sorted(set(re.findall(r"hone (\w+)", README.read_text()))))
def test_commands_in_the_readme_exist(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0, command


def test_files_in_the_readme_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / target.partition("#")[0]).exists(), target
