"""Energy counters as Linux has them, in a folder laid out like its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.hardware.energy import Counter, EnergyMeter, energy_meter

RANGE_UJ = 262_143_328_850


def zone(powercap: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    place = powercap / folder
    place.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (place / file).write_text(f"{text}\n")
    return place


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with their cores and memory, and what counts all of it once more."""
    (tmp_path / "intel-rapl").mkdir()
    for number in (0, 1):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1_000_000)
        zone(tmp_path, f"intel-rapl:{number}:0", "core", 500_000)
        zone(tmp_path, f"intel-rapl:{number}:1", "dram", 2_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_and_memory_are_counted_once(powercap: Path) -> None:
    meter = energy_meter(powercap=powercap)
    assert meter.describe() == "package-0, dram, package-1, dram"
    before = meter.read()
    for zone_, more in (("intel-rapl:0", 3), ("intel-rapl:0:0", 100), ("intel-rapl:1:1", 2), ("intel-rapl:2", 100)):
        file = powercap / zone_ / "energy_uj"
        file.write_text(str(int(file.read_text()) + more * 1_000_000))
    assert meter.joules(before, meter.read()) == 5


def test_a_counter_that_wraps_around_goes_on(powercap: Path) -> None:
    file = powercap / "intel-rapl:0" / "energy_uj"
    meter = energy_meter(powercap=powercap)
    file.write_text(str(RANGE_UJ - 1_500_000))
    before = meter.read()
    file.write_text("500000")
    assert meter.joules(before, meter.read()) == pytest.approx(2)


def test_a_counter_that_begins_anew_is_no_gain() -> None:
    assert Counter("gpu", lambda: 0).between(5_000_000, 1_000_000) == 0


def test_host_without_counters_says_so(tmp_path: Path) -> None:
    meter = energy_meter(powercap=tmp_path / "none")
    assert meter.read() is None and meter.joules(None, None) is None
    assert meter.describe().startswith(f"not told by this host: {tmp_path}/none has no counters (RAPL)")


def test_counters_that_root_alone_may_read_are_named(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Path.read_text

    def denied(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return reads(path)

    monkeypatch.setattr(Path, "read_text", denied)  # tests may run as root, who may read all
    meter = energy_meter(powercap=powercap)
    assert meter.counters == () and "intel-rapl:0/energy_uj may be read by root only" in meter.describe()


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj", "name"])
def test_zone_that_is_not_whole_is_left_out(powercap: Path, broken: str) -> None:
    (powercap / "intel-rapl:0" / broken).write_text("")
    assert energy_meter(powercap=powercap).describe() == "dram, package-1, dram"


def test_counter_that_goes_away_gives_no_figure(powercap: Path) -> None:
    meter = energy_meter(powercap=powercap)
    before = meter.read()
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.read() is None and meter.joules(before, meter.read()) is None


def test_what_nothing_counts_is_not_nothing() -> None:
    assert EnergyMeter(()).joules((), None) is None
