"""The digits service: `bentoml serve services.digits:Digits`, and what bentofile.yaml packs.

services/model.py with the model's name in it; `hone new service` writes such a file for models of yours.
"""

from __future__ import annotations

import bentoml

from .base import ModelService, configuration, stored


@bentoml.service(name="digits", **configuration())
class Digits(ModelService):
    """Recognizes handwritten digits: the best variant of the newest `hone optimize examples/digits/recipe.yaml`."""

    models = tuple(stored("digits", __file__))
