"""What a container may use of its node's processors: control groups of version 1 and 2, as the kernel mounts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Group:
    """The control group that this process is in, for one controller.

    Attributes:
        folder: of the group.
        top: the highest folder that is mounted here; limits of every folder between the two hold, too.
        version: 1 or 2.
    """

    folder: Path
    top: Path
    version: int

    def path_up(self) -> Iterator[Path]:
        """Yield the group's folder and those above it, up to the top."""
        folder = self.folder
        yield folder
        while folder != self.top:
            folder = folder.parent
            yield folder


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the cores that a quota leaves to this process, the smallest along the path of its groups; None: no quota.

    Args:
        root: folder that stands for `/`.
    """
    found = [
        quota
        for group in _groups(root, "cpu")
        for folder in group.path_up()
        if (quota := (_quota_v1 if group.version == 1 else _quota_v2)(folder)) is not None
    ]
    return min(found, default=None)


def cpuset_cores(root: Path = Path("/")) -> int | None:
    """Return how many cores the cpuset of this process holds; None: no cpuset is mounted, or it says nothing.

    Args:
        root: folder that stands for `/`.
    """
    found = []
    for group in _groups(root, "cpuset"):
        files = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
        texts = (_read(group.folder / name) for name in files)
        if text := next((text for text in texts if text), ""):
            found.append(_count(text))
    return min((count for count in found if count), default=None)


def _groups(root: Path, controller: str) -> list[Group]:
    """Return the groups that may limit this process: with both versions mounted, the controller is in one of them."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 2 if number == "0" and not names else 1
        if version == 2 or controller in names.split(","):
            found += [_group(root, top, mounted, path, version) for top, mounted in _mounts(root, controller, version)]
    return found


def _group(root: Path, top: str, mounted: str, path: str, version: int) -> Group:
    """Return a process's group below a mount point.

    A container often sees its own group as the top while `/proc/self/cgroup` names it as the node does.
    """
    folder = root / top.lstrip("/")
    try:
        below = PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return Group(folder, folder, version)
    if ".." in below.parts or not (folder / below).is_dir():
        return Group(folder, folder, version)
    return Group(folder / below, folder, version)


def _mounts(root: Path, controller: str, version: int) -> list[tuple[str, str]]:
    """Return (mount point, folder of the hierarchy that is mounted there) for a controller."""
    found = []
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        fields, types = place.split(), kind.split()
        if len(fields) < 5 or not types:
            continue
        ours = version == 2 or controller in types[-1].split(",")
        if types[0] == ("cgroup2" if version == 2 else "cgroup") and ours:
            found.append((fields[4], fields[3]))
    return found


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _quota_v2(folder: Path) -> float | None:
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(limit, period)


def _ratio(limit: str, period: str) -> float | None:
    """Return limit / period; None where there is no limit: `max`, -1, or nothing to read."""
    if not limit.isdigit() or not period.isdigit() or not int(limit) or not int(period):
        return None
    return int(limit) / int(period)


def _count(text: str) -> int:
    """Return how many processors a list such as `0-3,8` names."""
    count = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            count += int(last or first) - int(first) + 1
    return count


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
