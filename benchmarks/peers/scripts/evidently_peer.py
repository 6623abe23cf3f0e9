# /// script
# dependencies = ["evidently==0.7.23", "pandas==2.3.3", "scipy==1.17.1", "numpy"]
#
# [tool.hone.detector]
# settings = "DataDriftPreset with its defaults, categories named; docs.evidentlyai.com, data drift"
# shares = [0.0, 0.5]
# ///

"""Let Evidently look at streams: `evidently_peer.py STREAM.npz...` writes `STREAM.out.npz` beside each.

A report of the preset also draws every column, which takes seconds. So one is made, and timed, for a look of each
stream and window; the other looks ask the tests that the preset chooses. If these say anything else, the script fails.
"""

import os
import sys
import time

import numpy as np

os.environ["DO_NOT_TRACK"] = "1"
WINDOWS = (400, 2000)


def main() -> None:
    for name in sys.argv[1:]:
        given = dict(np.load(name))
        np.savez(name.replace(".npz", ".out.npz"), **look(given))


def look(given):
    categories = given["categories"]
    reference = frame(given["reference"], categories)
    found, seconds = {}, []
    for key in [key for key in given if key.startswith("rows.")]:
        part = key.removeprefix("rows.")
        rows, ends = frame(given[key], categories), given[f"looks.{part}"]
        for window in WINDOWS:
            looks = [rows.iloc[end - window : end] for end in ends.tolist()]
            scores = np.array([tested(one, reference, categories) for one in looks])
            if part == "quiet":
                started = time.perf_counter()
                reported = preset(looks[-1], reference, categories)
                seconds.append(time.perf_counter() - started)
                np.testing.assert_allclose(scores[-1], reported, rtol=1e-9, atol=1e-12)
            found[f"{window}.{part}"] = scores
    return {**found, "seconds": np.median(seconds)}


def frame(rows, categories):
    import pandas as pd

    table = pd.DataFrame(rows.astype(float), columns=[f"c{index}" for index in range(rows.shape[1])])
    return table.astype({f"c{index}": str for index in np.flatnonzero(categories)})


def preset(current, reference, categories):
    """Return the scores of a report as its user makes it: the distance over the threshold."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = list(reference.columns)
    kinds = DataDefinition(
        categorical_columns=[name for name, category in zip(names, categories, strict=True) if category],
        numerical_columns=[name for name, category in zip(names, categories, strict=True) if not category],
    )
    pair = [Dataset.from_pandas(table.reset_index(drop=True), data_definition=kinds) for table in (current, reference)]
    metrics = [one for one in Report([DataDriftPreset()]).run(*pair).dict()["metrics"] if "column" in one["config"]]
    if any("p_value" in one["config"]["method"] for one in metrics):
        raise SystemExit("the preset chose a test with a p-value; only distances are read here")
    scores = {one["config"]["column"]: one["value"] / one["config"]["threshold"] for one in metrics}
    return [float(scores[name]) for name in names]


def tested(current, reference, categories):
    """Return the same scores, of the tests that the preset chooses, without its drawings."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    scores = []
    for name, category in zip(reference.columns, categories, strict=True):
        kind = ColumnType.Categorical if category else ColumnType.Numerical
        before, now = reference[name], current[name]
        result = get_stattest(before, now, kind, None)(before, now, kind, None)
        scores.append(result.drift_score / result.actual_threshold)
    return scores


if __name__ == "__main__":
    main()
