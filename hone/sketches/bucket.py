"""Sketches in an object store: services put their files there, readers fetch what is new to a folder of the cache.

An address is `s3://BUCKET/PREFIX`, of Amazon's S3 or what speaks it; credentials and endpoint are those that boto3
finds in the environment. A file has the name that it has in a folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hone.errors import HoneError, UnavailableError, one_line
from hone.files import atomic_write

SCHEME = "s3://"
KNOWN = "fetched.json"
"""Beside what was fetched: the tag that each object had."""
MOST_KEYS = 1000
"""That one call may delete."""


class Bucket:
    """A place in an object store.

    Args:
        address: `s3://BUCKET/PREFIX`.

    Raises:
        UnavailableError: boto3 isn't installed.
        HoneError: the address names no bucket.
    """

    def __init__(self, address: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise UnavailableError(f"{address} needs boto3", "pip install 'hone[s3]'") from None
        self.address = address
        self._bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
        if not self._bucket:
            raise HoneError(f"{address}: name a bucket, as in s3://BUCKET/PREFIX")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        # A store that doesn't answer must not hold a worker that stops for long.
        config = Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 2})
        try:
            self._client = boto3.client("s3", config=config)
        except Exception as error:  # noqa: BLE001 - of the region, of a file of credentials, of the endpoint
            raise HoneError(f"{address}: {one_line(error)}") from None

    def check(self) -> None:
        """Raise HoneError unless it can be written to."""
        self._do(self._client.put_object, "can't be written to", Key=f"{self._prefix}.hone", Body=b"")

    def put(self, root: Path, file: Path) -> None:
        """Put a file of a folder into the store, over what was there.

        Raises:
            OSError: it can't be.
        """
        key = f"{self._prefix}{file.relative_to(root).as_posix()}"
        try:
            self._do(self._client.put_object, "can't be written to", Key=key, Body=file.read_bytes())
        except HoneError as error:
            raise OSError(str(error)) from None

    def fetch(self, folder: Path, within: str) -> None:
        """Make a folder hold what the store does of a part of it, such as `model=digits/`.

        Raises:
            HoneError: it can't be read.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = folder / KNOWN
        known: dict[str, str] = json.loads(note.read_text()) if note.is_file() else {}
        there = self._list(within)
        for name, tag in there.items():
            if known.get(name) == tag and (folder / name).is_file():
                continue
            answer = self._do(self._client.get_object, "can't be read", Key=f"{self._prefix}{name}")
            (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(folder / name, answer["Body"].read(), mode=0o600, durable=False)
        for name in [name for name in known if name.startswith(within) and name not in there]:
            (folder / name).unlink(missing_ok=True)
        kept = {name: tag for name, tag in known.items() if not name.startswith(within)} | there
        atomic_write(note, json.dumps(kept), mode=0o600)

    def remove(self, names: list[str]) -> None:
        """Remove files.

        Raises:
            OSError: they can't be.
        """
        for start in range(0, len(names), MOST_KEYS):
            keys = [{"Key": f"{self._prefix}{name}"} for name in names[start : start + MOST_KEYS]]
            try:
                self._do(self._client.delete_objects, "can't be cleared", Delete={"Objects": keys, "Quiet": True})
            except HoneError as error:
                raise OSError(str(error)) from None

    def names(self) -> list[str]:
        """Return all files.

        Raises:
            OSError: it can't be read.
        """
        try:
            return [*self._list("model=")]
        except HoneError as error:
            raise OSError(str(error)) from None

    def _list(self, within: str) -> dict[str, str]:
        """Return the files of a part, with tags that change with their content."""
        found: dict[str, str] = {}
        more: dict[str, Any] = {}
        while True:
            page = self._do(self._client.list_objects_v2, "can't be read", Prefix=f"{self._prefix}{within}", **more)
            for one in page.get("Contents", ()):
                name = one["Key"].removeprefix(self._prefix)
                if ".." not in Path(name).parts:
                    found[name] = one["ETag"]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _do(self, call: Any, what: str, **arguments: Any) -> Any:
        try:
            return call(Bucket=self._bucket, **arguments)
        except Exception as error:  # noqa: BLE001 - boto3's own, of the network, of credentials
            raise HoneError(f"{self.address}: {what}: {one_line(error)}") from None


def address_of(folder: Path) -> str:
    """Return the address that a path was made of: `s3:/BUCKET/PREFIX`, as pathlib writes it; empty for a folder."""
    text = folder.as_posix()
    return f"{SCHEME}{text.removeprefix('s3:').strip('/')}" if text.startswith("s3:/") else ""


def fetched(folder: Path, model: str, cache: Path) -> Path:
    """Return a folder with the sketches of a model: itself, or what an address holds now.

    Args:
        folder: or an address as a path.
        cache: folder for what is fetched.

    Raises:
        HoneError: the address can't be read.
    """
    address = address_of(folder)
    if not address:
        return folder
    place = cache / "sketches" / hashlib.sha256(address.encode()).hexdigest()[:16]
    Bucket(address).fetch(place, f"model={model}/")
    return place
