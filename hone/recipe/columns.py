"""Files of rows that recipes name: .npz, .csv and .parquet, as arrays by column."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from hone.errors import RecipeError, UnavailableError, one_line


def read_columns(path: Path, where: str) -> dict[str, np.ndarray]:
    """Return what an .npz, .parquet or .csv file holds, by name; a column of a .csv is numbers where all of it is.

    Args:
        path: the file.
        where: what it is for, in messages.

    Raises:
        RecipeError: it is none of these, or can't be read.
        UnavailableError: what reads .parquet is not installed.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such file")
    if path.suffix == ".npz":
        return _read_npz(path, where)
    if path.suffix == ".parquet":
        return _read_parquet(path, where)
    if path.suffix == ".csv":
        return _read_csv(path)
    raise RecipeError(f"{path}: give an .npz, .parquet or .csv file")


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise RecipeError(f"{path}: can't be read as .csv: {one_line(error)}") from None
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise RecipeError(f"{path}: row {number} has {len(row)} cells, the header {len(header)}")
    if not rows:
        raise RecipeError(f"{path}: the data holds no rows")
    return {name.strip(): _numbers(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def _numbers(cells: tuple[str, ...]) -> np.ndarray:
    for kind in (np.int64, np.float64):
        try:
            return np.array(cells).astype(kind)
        except (ValueError, OverflowError):
            continue
    return np.array(cells)


def _read_npz(path: Path, where: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise RecipeError(f"{where}: {path} can't be read as .npz: {one_line(error)}") from error


def _read_parquet(path: Path, where: str) -> dict[str, np.ndarray]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UnavailableError("reading .parquet needs pyarrow", "pip install 'hone[ops]'") from None
    try:
        table = parquet.read_table(path)
    except Exception as error:
        raise RecipeError(f"{where}: {path} can't be read as parquet: {one_line(error)}") from error
    return {name: table.column(name).to_numpy() for name in table.column_names}
