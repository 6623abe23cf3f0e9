"""Ask pip-audit whether any pinned package has a known vulnerability: those of a set-up and those of each image.

    python requirements/audit.py [FILE ...]

Exit status 1 and a line for each when there are some. Where pip-audit's data can't be reached nothing is known about
any package: that is said, and is no failure, because a build without a network must still pass.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Audit:
    """What pip-audit said.

    Attributes:
        vulnerable: a line for each known vulnerability.
        unknown: packages that it has no data about.
        checked: packages that it has.
    """

    vulnerable: tuple[str, ...]
    unknown: tuple[str, ...]
    checked: int


def lock_files() -> list[Path]:
    """Return every file that pins what an installation or an image holds."""
    return [HERE / "constraints.txt", *sorted((HERE.parent / "k8s" / "image").glob("*.lock"))]


def pinned(files: Iterable[Path]) -> list[dict[str, str]]:
    """Return {package: version} of the files, several of them where a package has several: pip-audit takes one each."""
    versions: dict[str, list[str]] = {}
    for file in files:
        for name, version in PINNED.findall(file.read_text()):
            known = versions.setdefault(name.lower(), [])
            if version not in known:
                known.append(version)
    rounds = max((len(found) for found in versions.values()), default=0)
    return [{name: found[i] for name, found in versions.items() if i < len(found)} for i in range(rounds)]


def ask(packages: dict[str, str]) -> Any:
    """Return pip-audit's answer.

    Raises:
        SystemExit: it failed in another way than by finding something.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as stream:
        stream.write("".join(f"{name}=={version}\n" for name, version in packages.items()))
        stream.flush()
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json", "--no-deps",
                   "--disable-pip", "--requirement", stream.name]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if "ConnectionError" in done.stderr:
            return {"dependencies": [{"name": name, "skip_reason": last} for name in packages]}
        raise SystemExit(f"error: pip-audit failed: {last}") from None


def read(answer: Any) -> Audit:
    """Read pip-audit's JSON."""
    vulnerable, unknown, checked = [], [], 0
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
            continue
        checked += 1
        for found in package["vulns"]:
            fixed = ", ".join(found.get("fix_versions") or []) or "no version yet"
            vulnerable.append(f"{package['name']} {package['version']}: {found['id']}; fixed in {fixed}")
    return Audit(tuple(vulnerable), tuple(unknown), checked)


def main(arguments: list[str]) -> int:
    files = [Path(argument) for argument in arguments] or lock_files()
    audits = [read(ask(packages)) for packages in pinned(files)]
    vulnerable = [line for audit in audits for line in audit.vulnerable]
    unknown = [name for audit in audits for name in audit.unknown]
    checked = sum(audit.checked for audit in audits)
    for line in vulnerable:
        sys.stdout.write(f"{line}\n")
    if unknown and not checked:
        sys.stdout.write(f"pip-audit: its data can't be reached from here; {len(unknown)} packages were not audited\n")
    elif unknown:
        sys.stdout.write(f"pip-audit: nothing is known about {', '.join(sorted(set(unknown)))}\n")
    if checked:
        sys.stdout.write(f"pip-audit: {checked} packages, {len(vulnerable)} known vulnerabilities\n")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
