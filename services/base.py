"""What every service of Hone is made of: pick, load, warm, answer, drain."""

from __future__ import annotations

import gc
import logging
import os
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NoReturn

import bentoml
from bentoml.models import BentoModel

from hone import store
from hone.errors import ArtifactError, HoneError
from services.batching import Batcher
from services.endpoint import PredictEndpoint
from services.failures import status_of
from services.loading import LoadedModel, candidates, load
from services.metrics import Metrics
from services.server import FastService, check_version
from services.settings import Settings

logger = logging.getLogger("hone.serving")


def configuration() -> dict[str, Any]:
    """Return what a service of Hone asks of BentoML.

    Its access log and tracing cost more than a small model's inference; our own metrics take their place. The time
    limit is a backstop: the queue is bounded.
    """
    return {
        "workers": settings_or_exit().workers,
        "traffic": {"timeout": 60},
        "logging": {"access": {"enabled": False}},
        "tracing": {"excluded_urls": [".*"]},
        "metrics": {"enabled": True},
        "service_class": FastService,
    }


def settings_or_exit() -> Settings:
    """Return the settings; a wrong variable ends the import with one line."""
    try:
        return Settings.from_environment()
    except HoneError as error:
        _exit(error)


def stored(reference: str, module_file: str) -> list[BentoModel]:
    """Return the store references of the model that a service serves, best first, for its `models` attribute.

    Corrupt ones are left out, with a line that names the file. Ends the program with one line when the store holds
    no sound artifact of the model: a worker that failed on it would be restarted forever.
    """
    sound: list[BentoModel] = []
    problems: list[HoneError] = []
    try:
        check_version()
        for entry in candidates(reference, module_file):
            try:
                entry.opened()
                sound.append(BentoModel(entry.tag))
            except ArtifactError as error:
                problems.append(error)
    except HoneError as error:
        _exit(error)
    if not sound:
        _exit(problems[0])
    for problem in problems:
        sys.stderr.write(f"passed over: {problem}\n")
    return sound


def _exit(error: HoneError) -> NoReturn:
    """BentoML imports a service to run or to build it; a traceback of that import helps nobody."""
    if os.environ.get("HONE_DEBUG"):
        raise error
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(error.exit_code) from None


class ModelService:
    """Base of the services: serves the best of `models` that this host can run.

    A subclass sets `models`, and inherits `predict`, health and draining.
    """

    models: tuple[BentoModel, ...] = ()
    bento_service: FastService

    def __init_subclass__(cls) -> None:
        # BentoML records the models that it finds as attributes of the class in the bento that it builds.
        for index, model in enumerate(cls.models):
            setattr(cls, f"model_{index}", model)

    def __init__(self) -> None:
        self._settings = Settings.from_environment()
        self._model: LoadedModel | None = None
        self._batcher: Batcher | None = None
        self._executor: Executor | None = None

    @bentoml.api(route="/predict")
    async def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Predict rows.

        Over HTTP `services.endpoint` answers in this method's place, with the same request and response; this one
        serves BentoML's own callers, such as another service that depends on this one.
        """
        import orjson

        endpoint = self.bento_service.endpoint
        if endpoint is None:
            raise bentoml.exceptions.ServiceUnavailable("the model is still loading")
        try:
            answer: dict[str, Any] = orjson.loads(await endpoint.compute(orjson.dumps({"inputs": inputs})))
        except Exception as error:
            status, message, _ = status_of(error)
            if status >= 500:
                raise
            raise bentoml.exceptions.InvalidArgument(message) from error
        return answer

    @bentoml.on_startup
    async def start(self) -> None:
        """Load and warm the model; the worker turns ready when this returns."""
        log_like_bentoml()
        entries = [store.resolve(str(model.tag)) for model in self.models]
        self._model = load(entries, self._settings)
        metrics = Metrics(self._model.entry.name, self._model.entry.version)
        if not self._model.runs_inline:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._batcher = Batcher(
            self._model.runtime.run,
            batchable=self._model.artifact.signature.batchable,
            max_batch_rows=self._settings.max_batch_rows,
            max_queue_rows=self._settings.queue_rows,
            executor=self._executor,
            observe=metrics.batch,
        )
        self.bento_service.described = self._model.artifact
        self.bento_service.endpoint = PredictEndpoint(self._model, self._batcher, metrics, self._settings)
        freeze_heap()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Answer what was accepted, refuse what comes now, and give the model's memory back."""
        if self._batcher is not None:
            await self._batcher.close()
        self.bento_service.endpoint = None
        if self._executor is not None:
            self._executor.shutdown()
        if self._model is not None:
            self._model.runtime.close()

    async def __is_ready__(self) -> bool:
        return self.bento_service.endpoint is not None


def log_like_bentoml() -> None:
    """Give our loggers the handlers that BentoML set up for its own in this worker."""
    ours, theirs = logging.getLogger("hone"), logging.getLogger("bentoml")
    ours.handlers, ours.propagate = theirs.handlers, theirs.propagate
    ours.setLevel(logging.INFO)


def freeze_heap() -> None:
    """Keep the garbage collector away from everything that start-up made, and let it run rarely.

    A full collection walks every live object: with BentoML and a runtime loaded that stops the worker for tens of
    milliseconds, which shows as the service's p99. What requests make is freed by reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
