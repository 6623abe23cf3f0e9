"""What an experiment has to know to go on after whatever ran it was killed: a file beside the store, replaced whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hone.errors import first_problem
from hone.files import atomic_write, locked
from hone.names import is_tag_part, shown
from hone.services.status.splitting import Share
from hone.store import models_dir

from .metrics import Closed, ExperimentError, Guard, Metric

FOLDER = "hone-experiments"
CONTROL = "control"
Status = Literal["starting", "running", "stopping", "stopped"]


class Stage(Closed):
    """A time in which weights stand still.

    Attributes:
        since: when all services had them, seconds since 1970.
        weights: percent; none while they are being changed, when nothing counts.
    """

    since: float
    weights: tuple[float, ...] = ()


class Experiment(Closed):
    """`experiment.json`.

    Attributes:
        name: of the model.
        id: of the experiment.
        urls: of the services, which all have one split.
        each: every address that the name in `urls` has is a service.
        ca: certificates that theirs are checked with; empty: those that the system knows.
        arms: names; the first is the control.
        versions: of the arms.
        weights: percent that they get when it begins.
        sticky: header whose value keeps a caller at an arm; empty: each request is dealt by chance.
        salt: the same in every service, so that a caller has one arm.
        metric: that decides.
        also: metrics that are shown beside it.
        guards: that end it.
        effect: the smallest gain that matters; 0: any.
        units: callers, or requests, of all arms that were planned.
        feedback: folder of answers and feedback; empty: none is kept.
        key_file: that they are encrypted with; empty: they aren't.
        output: of the model, that labels are about; empty: its first.
        wait_s: age at which an answer counts; what became known of it later doesn't.
        lasts_s: seconds after which it ends, decided or not; 0: none.
        bandit: weights follow what is known of the arms.
        reason: of the person who began it.
        status: where it stands.
        stages: weights in force, oldest first.
        answer: arm that all requests go to when it ends.
        told: why it ended.
        exit_code: that whoever watches it ends with.
        jumped_s: that the clock has jumped by while it was watched.
        seen_at: when it was looked at last.
    """

    schema_version: Literal[1] = 1
    name: str
    id: str = Field(default_factory=lambda: secrets.token_hex(8), pattern=r"^[0-9a-f]{16}$")
    urls: tuple[str, ...] = Field(min_length=1)
    each: bool = False
    ca: str = ""
    arms: tuple[str, ...] = Field(min_length=2)
    versions: tuple[str, ...]
    weights: tuple[float, ...]
    sticky: str = ""
    salt: str = Field(default_factory=lambda: secrets.token_hex(8))
    metric: Metric
    also: tuple[Metric, ...] = ()
    guards: tuple[Guard, ...] = ()
    effect: float = Field(0.0, ge=0)
    units: float = Field(gt=0)
    feedback: str = ""
    key_file: str = ""
    output: str = ""
    wait_s: float = 0.0
    lasts_s: float = 0.0
    bandit: bool = False
    reason: str = ""
    status: Status = "starting"
    stages: tuple[Stage, ...] = ()
    answer: str = ""
    told: str = ""
    exit_code: int = 0
    jumped_s: float = 0.0
    seen_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.status == "stopped"

    @property
    def variants(self) -> tuple[str, ...]:
        return self.arms[1:]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric that is shown."""
        return (self.metric, *self.also)

    @property
    def weights_now(self) -> tuple[float, ...]:
        return next((stage.weights for stage in reversed(self.stages) if stage.weights), self.weights)

    @property
    def since(self) -> float:
        """When it began in all services, seconds since 1970; 0: it hasn't."""
        return self.stages[0].since if self.stages else 0.0

    def tag(self, arm: str) -> str:
        return f"{self.name}:{self.versions[self.arms.index(arm)]}"

    def shares(self) -> list[Share]:
        """Return the arms as services are asked for them."""
        return [Share(*one) for one in zip(self.arms, self.versions, self.weights_now, strict=True)]

    def ran_s(self, now: float) -> float:
        """Return for how long it has run; a clock that jumped doesn't change it."""
        return max(0.0, now - self.since - self.jumped_s) if self.since else 0.0

    def becoming(self, **changes: Any) -> Experiment:
        """Return it with other values, once they are on disk.

        Raises:
            ExperimentError: they can't be written.
        """
        after = self.model_copy(update=changes)
        write(self.name, "experiment.json", after.model_dump_json(indent=2))
        return after


def folder_of(name: str) -> Path:
    """Return where what is known of a model's experiment lies; raises ExperimentError for what is no name."""
    if not is_tag_part(name):
        raise ExperimentError(f"no model {shown(name)}")
    return models_dir().resolve().parent / FOLDER / name


def write(name: str, file: str, text: str) -> None:
    place = folder_of(name) / file
    try:
        atomic_write(place, text + "\n")
    except OSError as error:
        raise ExperimentError(f"{place}: can't be written: {error.strerror}") from None


def experiment_of(name: str) -> Experiment | None:
    """Return the last experiment of a model, None where there was none.

    Raises:
        ExperimentError: its file can't be read.
    """
    file = folder_of(name) / "experiment.json"
    try:
        return Experiment.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExperimentError(f"{file}: can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise ExperimentError(f"{file}: {first_problem(error)}") from None


def known(name: str) -> Experiment:
    """Return the last experiment of a model; raises ExperimentError where there was none."""
    found = experiment_of(name)
    if found is None:
        raise ExperimentError(f"there was no A/B test of '{name}' here; hone ab start {name} --to candidate begins one")
    return found


def names() -> list[str]:
    """Return the models that an experiment is known of."""
    return sorted(file.parent.name for file in (models_dir().resolve().parent / FOLDER).glob("*/experiment.json"))


@contextmanager
def only_one(name: str, wait_s: float = 15.0) -> Iterator[None]:
    """Let one process act on a model's experiment; the kernel frees a killed one's lock.

    Args:
        wait_s: for another one, which watches and has a look now.

    Raises:
        ExperimentError: another one does for longer.
    """
    place, deadline = folder_of(name), time.monotonic() + wait_s
    with ExitStack() as held:
        while True:
            try:
                place.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(place / "lock", wait=False))
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    message = f"another process acts on the A/B test of '{name}'; hone ab status {name} shows it"
                    raise ExperimentError(message) from None
                time.sleep(0.1)
            except OSError as error:
                raise ExperimentError(f"{place}: {error.strerror}") from None
        yield
