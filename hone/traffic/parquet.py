"""Parquet files of recorded traffic, encrypted where there is a key (Parquet modular encryption).

Every column is encrypted, with a key of the file's own that is wrapped with the given one. The footer stays readable:
how many rows there are, and a file's place in the chain, can be checked without the key.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from hone.errors import UnavailableError, one_line

from .keys import NAME, VARIABLE, LockedError, RecordKey


def require_pyarrow() -> None:
    """Raise UnavailableError where pyarrow isn't installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UnavailableError("pyarrow is not installed", "pip install 'hone[ops]'") from None


def write_table(table: Any, stream: IO[bytes], key: RecordKey | None = None) -> None:
    """Write an Arrow table.

    Dictionaries are for text of few values only: looking up numbers and ids, nearly all of them distinct, takes five
    times as long as the rest and makes the file larger.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    properties = None if key is None else _encryption(key, _leaves(table))
    words = [field.name for field in table.schema if pa.types.is_string(field.type) and field.name != "request_id"]
    pq.write_table(table, stream, compression="zstd", use_dictionary=words, encryption_properties=properties)


def read_table(file: Path, key: RecordKey | None = None) -> Any:
    """Return the Arrow table of a file, encrypted or not.

    Raises:
        LockedError: it is encrypted, and the key is missing or another one.
        OSError: it can't be read, or is no Parquet.
    """
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, decryption_properties=_decryption(key) if key else None).read()
    except LockedError as error:
        raise LockedError(f"{file}: {error}") from None
    except OSError as error:
        if "ecrypt" not in str(error):
            raise
        needs = "needs its key" if key is None else "does not open with this key"
        raise LockedError(f"{file}: is encrypted and {needs}: {VARIABLE} names its file ({one_line(error)})") from None


def _leaves(table: Any) -> list[str]:
    """Return the columns of a table as Parquet has them: a list's values lie under it."""
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table.slice(0, 0), stream)
    schema = pq.ParquetFile(stream).metadata.schema
    return [schema.column(place).path for place in range(len(schema))]


def _encryption(key: RecordKey, columns: list[str]) -> Any:
    import pyarrow.parquet.encryption as pe

    configuration = pe.EncryptionConfiguration(
        footer_key=NAME,
        column_keys={NAME: columns},
        plaintext_footer=True,
        encryption_algorithm="AES_GCM_V1",
        data_key_length_bits=256,
    )
    return _factory(key).file_encryption_properties(pe.KmsConnectionConfig(), configuration)


def _decryption(key: RecordKey) -> Any:
    import pyarrow.parquet.encryption as pe

    return _factory(key).file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())


@lru_cache(4)
def _factory(key: RecordKey) -> Any:
    import pyarrow.parquet.encryption as pe

    class Wrapping(pe.KmsClient):
        """Wraps a file's own keys with the given one."""

        def __init__(self, _: Any) -> None:
            super().__init__()

        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return key.seal(key_bytes, master_key_identifier.encode())

        def unwrap_key(self, wrapped_key: bytes | str, master_key_identifier: str) -> bytes:
            raw = wrapped_key.encode() if isinstance(wrapped_key, str) else wrapped_key
            return key.open(raw, master_key_identifier.encode())

    return pe.CryptoFactory(Wrapping)
