"""What every service of Hone is made of: pick, load, warm, answer, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import bentoml
from bentoml.models import BentoModel

from hone import store
from hone.errors import ArtifactError, HoneError
from hone.hardware import cores
from hone.store.trust import Policy, TrustError, open_to_run

from .access.exposure import check_exposure, default_host
from .assembly import attach_shadow, build_edge, freeze_heap, load_models
from .batching.scheduler import Scheduler
from .deferred import defer
from .grpc.server import GrpcServer
from .http.connections import limit_handshakes
from .http.failures import status_of
from .http.limits import Limits
from .http.stopping import Stopping
from .models.desired import DesiredState, state_folder
from .models.followed import Followed
from .models.loading import candidates
from .models.planned import check_plan
from .observe import logs
from .protocols.predict import PredictJson
from .routes.edge import Edge
from .routes.hub import Hub
from .routes.management import Management
from .routes.repository import Repository
from .routes.server import FastService, check_version
from .routes.splits.operations import SplitOperations
from .routes.upkeep import tend
from .settings import Settings, misspelled
from .startup import check_start

if TYPE_CHECKING:
    from .jobs.assembly import WorkerJobs

logger = logging.getLogger("hone.serving")


def configuration() -> dict[str, Any]:
    """Return what a service of Hone asks of BentoML.

    Its access log and tracing cost more than a small model's inference; our own take their place. The time limit is a
    backstop: the queue is bounded. Without keys it listens on loopback only. What can't work ends the import with one
    line.
    """
    defer()
    settings = settings_or_exit()
    try:
        check_start(settings, sys.argv)
    except HoneError as error:
        _exit(error)
    return {
        "workers": settings.workers,
        "http": {"host": default_host(settings)},
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


def plan_or_exit(settings: Settings, tags: list[str]) -> None:
    """End the import with one line when the plan that is given is for nothing of what is served."""
    try:
        plan = settings.given_plan
        if plan is not None and list(sys.argv[1:2]) != ["build"]:
            check_plan(plan, tags)
    except HoneError as error:
        _exit(error)


FOLLOWED: dict[str, list[str]] = {}
"""Aliases that services were given in their code or their settings, by the file of the service's module."""


def stored(reference: str, module_file: str, *, follow: bool = True) -> list[BentoModel]:
    """Return the store references of the model that a service serves, best first, for its `models` attribute.

    Several models in one service: `models = (*stored("one", __file__), *stored("two", __file__))`; the first answers
    `/predict`. Without a reference: what HONE_MODEL names, or in a bento all that it was built with. `NAME@ALIAS` is
    what that means now, and with `follow` the service swaps to what it means later.

    Corrupt ones, and those that may not run here, are left out, with a line that says why. Ends the program with one
    line when the store holds no sound artifact of the model: a worker that failed on it would be restarted forever.
    """
    sound: list[BentoModel] = []
    problems: list[HoneError] = []
    if follow and "@" in reference:
        FOLLOWED.setdefault(module_file, []).append(reference)
    try:
        check_version()
        settings = Settings.from_environment()
        policy = Policy.of(code=settings.trust_code, keys=settings.trusted_keys)
        packing = list(sys.argv[1:2]) == ["build"]
        for entry in candidates(reference, module_file, None if packing else settings):
            try:
                open_to_run(entry, policy)
                sound.append(BentoModel(entry.tag))
            except TrustError as error:
                problems.append(error)
            except ArtifactError as error:
                problems.append(_corrupt(entry, error))
    except HoneError as error:
        _exit(error)
    if not sound:
        _exit(problems[0])
    for problem in problems:
        sys.stderr.write(f"passed over: {problem}\n")
    return sound


def _corrupt(entry: store.Entry, error: ArtifactError) -> ArtifactError:
    """Return the error with the place that an operator knows, and with what to do."""
    text = str(error).replace(str(entry.path), str(entry.path.resolve()))
    return ArtifactError(f"{text}; check all with 'hone models verify', or serve another variant by its name")


def _exit(error: HoneError) -> NoReturn:
    """BentoML imports a service to run or to build it; a traceback of that import helps nobody."""
    if os.environ.get("HONE_DEBUG"):
        raise error
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(error.exit_code) from None


def file_of(service: type) -> str:
    """Return the file that defines a service's class; the bento that holds it is found from there."""
    return str(getattr(sys.modules[service.__module__], "__file__", ""))


class ModelService:
    """Base of the services: serves, for each name among `models`, the best that this host can run.

    A subclass sets `models`, and inherits `predict`, health and draining.
    """

    models: tuple[BentoModel, ...] = ()
    bento_service: FastService

    def __init_subclass__(cls) -> None:
        settings = settings_or_exit()
        file = file_of(cls)
        more = [model for reference in (*settings.more_models, settings.shadow) if reference
                for model in stored(reference, file, follow=reference in settings.more_models)]  # fmt: skip
        # BentoML records the models that it finds as attributes of the class, by the attributes' names, in the bento
        # that it builds: with zeros in front the first stays the first.
        tags = list(dict.fromkeys(str(model.tag) for model in (*cls.models, *more)))
        for index, tag in enumerate(tags):
            setattr(cls, f"model_{index:04}", BentoModel(tag))
        plan_or_exit(settings, tags)

    def __init__(self) -> None:
        self._settings = Settings.from_environment()
        self._hub: Hub | None = None
        self._edge: Edge | None = None
        self._grpc: GrpcServer | None = None
        self._jobs: WorkerJobs | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._stopping: Stopping | None = None

    @bentoml.api(route="/predict")
    async def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Predict rows.

        Over HTTP our own endpoints answer in this method's place, with the same request and response; this one serves
        BentoML's own callers, such as another service that depends on this one.
        """
        import orjson

        hub = self.bento_service.hub
        if hub is None:
            raise bentoml.exceptions.ServiceUnavailable("the model is still loading")
        try:
            served = hub.get(hub.default)
            limits = Limits.of(self._settings)
            protocol = PredictJson(served.offered, served.entry.name, served.entry.version, limits)
            request = protocol.decode({}, orjson.dumps({"inputs": inputs}))
            _, body = protocol.encode(request, await served.infer(request.inputs))
            answer: dict[str, Any] = orjson.loads(body)
        except Exception as error:
            status, message, _ = status_of(error)
            if status >= 500:
                raise
            raise bentoml.exceptions.InvalidArgument(message) from error
        return answer

    @bentoml.on_startup
    async def start(self) -> None:
        """Load and warm the models; the worker turns ready when this returns."""
        settings = self._settings
        logs.set_up(settings.log_format)
        for line in misspelled():
            logger.warning("%s", line)
        check_exposure(settings, sys.argv)
        folder = state_folder()
        self._edge = build_edge(settings, folder)
        self._hub = Hub(self._edge, Scheduler(max(1, cores() // max(1, settings.workers))), file_of(type(self)), folder)
        await load_models(self._hub, [store.resolve(str(model.tag)) for model in self.models], settings.more_models)
        await attach_shadow(self._hub, settings)
        followed = Followed(FOLLOWED.get(file_of(type(self)), []))
        repository = Repository(self._hub, self._edge, DesiredState(folder), followed)
        await repository.follow()
        await SplitOperations(self._hub, repository).restore()
        if settings.grpc_port:
            self._grpc = GrpcServer(self._hub, self._edge, repository)
            await self._grpc.start(settings)
        if settings.jobs_dir:
            from .jobs.assembly import WorkerJobs

            self._jobs = WorkerJobs(self._hub, self._edge)
        self._upkeep = asyncio.get_running_loop().create_task(tend(self._hub, repository, settings.golden_check_s))
        self._stopping = Stopping(settings, self._hub.drain)
        self._stopping.on_signals()
        limit_handshakes(asyncio.get_running_loop())
        freeze_heap()
        self.bento_service.edge = self._edge
        self.bento_service.management = Management(self._hub, self._edge, repository)
        self.bento_service.jobs = None if self._jobs is None else self._jobs.answer
        self.bento_service.hub = self._hub

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Answer what was accepted, refuse what comes now, and give the models' memory back."""
        stopping = self._stopping or Stopping(self._settings)
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        if self._grpc is not None:
            await stopping.within(0.5, self._grpc.stop(), "gRPC calls")
        if self._jobs is not None:
            await stopping.within(0.3, self._jobs.close(), "jobs")
        if self._hub is not None:
            self._hub.flush()
            await stopping.within(0.5, self._hub.close(), "inferences")
        if self._edge is not None:
            await stopping.within(0.8, self._edge.close(stopping.left_s * 0.6), "records, traces or the cache")
        self.bento_service.hub = None
        self.bento_service.management = None
        self.bento_service.jobs = None

    async def __is_ready__(self) -> bool:
        hub = self.bento_service.hub
        return hub is not None and not hub.draining and not hub.withdrawn and not hub.ailing
