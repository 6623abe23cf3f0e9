"""The service of any stored model: the one that HONE_MODEL names. `hone serve` and images run this one."""

from __future__ import annotations

import bentoml

from .base import ModelService, configuration, settings_or_exit, stored


@bentoml.service(name="model", **configuration())
class Model(ModelService):
    """Any stored model, by its signature."""

    models = tuple(stored(settings_or_exit().model, __file__))
