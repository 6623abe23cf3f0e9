"""Files that a server shows itself with: what is wrong with them is told before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.certificates import check_in_time, check_pair
from hone.errors import HoneError
from tests.servers import self_signed


def test_pair_that_is_valid_today_passes_also_in_one_file(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    for files in ((str(certificate), str(key)), (str(both), None)):
        check_pair(*files)
        check_in_time(*files)
    check_pair(None, None)


@pytest.mark.parametrize(
    ("days", "words"), [((-9, -1), "certificate has expired"), ((2, 9), "certificate is not yet valid")]
)
def test_certificate_of_other_days_is_told(tmp_path: Path, days: tuple[int, int], words: str) -> None:
    certificate, key = self_signed(tmp_path, days)
    check_pair(str(certificate), str(key))
    with pytest.raises(HoneError, match=f"{certificate}: {words}; no caller would trust it"):
        check_in_time(str(certificate), str(key))


def test_files_that_are_no_pair_are_told(tmp_path: Path) -> None:
    certificate, key = map(str, self_signed(tmp_path))
    (tmp_path / "other").mkdir()
    other = str(self_signed(tmp_path / "other")[1])
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(HoneError, match=f"{certificate}: not usable with its key {other}: key values mismatch"):
        check_pair(certificate, other)
    with pytest.raises(HoneError, match="not usable with its key"):
        check_pair(str(empty), key)
    with pytest.raises(HoneError, match="--ssl-keyfile needs --ssl-certfile"):
        check_pair(None, key)
    with pytest.raises(HoneError, match=r"none.pem: can't be read: No such file"):
        check_pair(certificate, str(tmp_path / "none.pem"))
