# /// script
# dependencies = ["nannyml==0.13.1", "pandas==2.3.3", "statsmodels==0.15.0", "scipy==1.17.1", "numpy"]
#
# [tool.hone.detector]
# settings = "UnivariateDriftCalculator with its defaults, categories named, chunks of 400; nannyml.readthedocs.io"
# ///

"""Let NannyML look at streams: `nannyml_peer.py STREAM.npz...` writes `STREAM.out.npz` beside each.

Its thresholds are three standard deviations over the mean of the reference's chunks, so a look's score is the share of
that distance. It wants six chunks of reference at least, so its chunks have 400 rows.
"""

import os
import sys
import time
import warnings

import numpy as np

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
CHUNK = 400
TIMED = 5


def main() -> None:
    warnings.simplefilter("ignore")
    for name in sys.argv[1:]:
        given = dict(np.load(name))
        np.savez(name.replace(".npz", ".out.npz"), **look(given))


def look(given):
    import nannyml

    reference, categories = frame(given["reference"], given["categories"]), given["categories"]
    names = list(reference.columns)
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=[name for name, category in zip(names, categories, strict=True) if category],
        chunk_size=CHUNK,
    ).fit(reference)
    found, seconds = {}, []
    for key in [key for key in given if key.startswith("rows.")]:
        part = key.removeprefix("rows.")
        # A chunk is judged by itself, so that all looks can be calculated at once.
        chunks = [given[key][end - CHUNK : end] for end in given[f"looks.{part}"].tolist()]
        found[f"{CHUNK}.{part}"] = scores(calculator, frame(np.concatenate(chunks), categories), names)
        for chunk in chunks[:TIMED] if part == "quiet" else ():
            started = time.perf_counter()
            calculator.calculate(frame(chunk, categories))
            seconds.append(time.perf_counter() - started)
    return {**found, "seconds": np.median(seconds)}


def frame(rows, categories):
    import pandas as pd

    table = pd.DataFrame(rows.astype(float), columns=[f"c{index}" for index in range(rows.shape[1])])
    return table.astype({f"c{index}": str for index in np.flatnonzero(categories)})


def scores(calculator, rows, names):
    result = calculator.calculate(rows)
    before, now = (result.filter(period=period).to_df() for period in ("reference", "analysis"))
    found = []
    for name in names:
        mean = before[(name, "jensen_shannon", "value")].astype(float).mean()
        value = now[(name, "jensen_shannon", "value")].astype(float).to_numpy()
        upper = now[(name, "jensen_shannon", "upper_threshold")].astype(float).to_numpy()
        score = (value - mean) / np.maximum(upper - mean, 1e-9)
        alert = now[(name, "jensen_shannon", "alert")].to_numpy(bool)
        if ((score > 1) != alert).any():
            raise SystemExit(f"{name}: its alerts are not those of its upper threshold")
        found.append(score)
    return np.stack(found, axis=1)


if __name__ == "__main__":
    main()
