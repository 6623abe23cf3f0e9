"""Cores that a container may use, read from folders laid out as kernels, Docker and Kubernetes lay them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hone.hardware import cores
from hone.hardware.cgroups import cpu_quota, cpuset_cores

V1_MOUNTS = """\
32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 {mounted} /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2_MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"


def host(root: Path, cgroup: str, mounts: str, **limits: str) -> Path:
    """Write a root folder; limits by path below /sys/fs/cgroup, `__` for a slash and `-` for a dot."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts)
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_cfs", "cpu.cfs").replace("-", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def test_version_1_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    """As on a node, or in a container that sees the node's hierarchy: the pod's quota stands above the container's."""
    where = "4:cpu,cpuacct:/kubepods/pod1/abc\n3:cpuset:/kubepods/pod1/abc\n0::/kubepods/pod1/abc\n"
    files = {
        "cpu,cpuacct__cpu_cfs_quota_us": "-1",
        "cpu,cpuacct__cpu_cfs_period_us": "100000",
        "cpu,cpuacct__kubepods__pod1__cpu_cfs_quota_us": "150000",
        "cpu,cpuacct__kubepods__pod1__cpu_cfs_period_us": "100000",
        "cpu,cpuacct__kubepods__pod1__abc__cpu_cfs_quota_us": "800000",
        "cpu,cpuacct__kubepods__pod1__abc__cpu_cfs_period_us": "100000",
        "unified__kubepods__pod1__abc__cgroup-procs": "1",
    }
    assert cpu_quota(host(tmp_path, where, V1_MOUNTS.format(mounted="/"), **files)) == 1.5


def test_version_1_container_whose_own_group_is_the_top(tmp_path: Path) -> None:
    """Docker without a namespace of control groups: the path is the node's, and only the own group is mounted."""
    where = "4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n"
    files = {
        "cpu,cpuacct__cpu_cfs_quota_us": "50000",
        "cpu,cpuacct__cpu_cfs_period_us": "100000",
        "cpuset__cpuset-cpus": "0-3,8",
    }
    root = host(tmp_path, where, V1_MOUNTS.format(mounted="/docker/abc"), **files)
    assert cpu_quota(root) == 0.5
    assert cpuset_cores(root) == 5
    assert cores(root) == 1


@pytest.mark.parametrize(
    ("own", "above", "wanted"),
    [("max 100000", "max 100000", None), ("200000 100000", "max 100000", 2), ("400000 100000", "250000 100000", 2.5)],
)
def test_version_2_takes_the_smallest_quota_on_the_way_up(
    tmp_path: Path, own: str, above: str, wanted: float | None
) -> None:
    files = {"kubepods-slice__cpu-max": above, "kubepods-slice__pod1__cpu-max": own}
    root = host(tmp_path, "0::/kubepods.slice/pod1\n", V2_MOUNTS, **files)
    assert cpu_quota(root) == wanted


def test_version_2_container_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    root = host(tmp_path, "0::/\n", V2_MOUNTS, **{"cpu-max": "70000 100000", "cpuset-cpus-effective": "2-3"})
    assert cpu_quota(root) == 0.7
    assert cpuset_cores(root) == 2
    assert cores(root) == 1


@pytest.mark.parametrize("text", ["", "max", "max 100000", "100000 0", "many few", "-1 100000"])
def test_what_is_no_quota_limits_nothing(tmp_path: Path, text: str) -> None:
    assert cpu_quota(host(tmp_path, "0::/\n", V2_MOUNTS, **{"cpu-max": text})) is None


@pytest.mark.parametrize("where", ["", "0::/\n", "0::/../../other\n", "nonsense\n", "4:cpu:/gone\n"])
def test_host_without_limits_has_its_cores(tmp_path: Path, where: str) -> None:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    root = host(tmp_path, where, V1_MOUNTS.format(mounted="/"))
    assert cores(root) == (len(affinity(0)) if affinity else os.cpu_count())
