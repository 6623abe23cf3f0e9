"""Fit the model with statsmodels, in some seconds, and write its ten coefficients and the spread.

`hone retrain` names a folder for them; without one they are written beside this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from survey import split


def main() -> None:
    rows, _, visits, _ = split()
    model = sm.NegativeBinomial(visits.astype(np.float64), sm.add_constant(rows.astype(np.float64)))
    fitted = model.fit(disp=0, maxiter=500)
    *weights, alpha = (float(value) for value in fitted.params)
    text = json.dumps({"weights": weights, "alpha": alpha}, indent=2)
    folder = Path(os.environ.get("HONE_RETRAIN_OUT") or Path(__file__).parent)
    (folder / "coefficients.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
