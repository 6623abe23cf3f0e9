"""Several services as one: all have an experiment's split, or none begins with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.errors import HoneError
from hone.services.status.asking import Access, each_address
from hone.services.status.splitting import RemoteSplit

from .metrics import ExperimentError
from .state import Experiment


@dataclass
class Replicas:
    """The services of an experiment.

    Args:
        experiment: whose split they have.
        access: to all of them.
    """

    experiment: Experiment
    access: Access

    def splits(self) -> dict[str, RemoteSplit]:
        """Return each service by its address.

        Raises:
            HoneError: the name has no address.
        """
        one = self.experiment
        urls = [address for url in one.urls for address in (each_address(url) if one.each else [url])]
        return {url: RemoteSplit(url, one.name, self.access) for url in urls}

    def begin(self) -> list[str]:
        """Give every service the split; return the addresses of those that lose it when they are started again.

        Raises:
            ExperimentError: a service can't be reached, refuses, or splits already; then none has the split.
        """
        splits = self.splits()
        for url, split in splits.items():
            found = split.show()["split"]
            if found is not None and not self.is_ours(found):
                message = f"{url}: the requests for '{split.name}' are split already; hone split clear {split.name}"
                raise ExperimentError(message)
        lost: list[str] = []
        done: list[RemoteSplit] = []
        try:
            for url, split in splits.items():
                done.append(split)
                if not self.put(split).get("kept"):
                    lost.append(url)
        except BaseException:
            for split in done:
                _clear_quietly(split, self.experiment.arms[0])
            raise
        return lost

    def put(self, split: RemoteSplit) -> dict[str, Any]:
        """Give one service the split with the weights that are in force."""
        return split.set(self.experiment.shares(), sticky=self.experiment.sticky, salt=self.experiment.salt)

    def is_ours(self, found: Any) -> bool:
        """Return whether a split is the experiment's, with whatever weights."""
        if not found or found["salt"] != self.experiment.salt or found["sticky"] != self.experiment.sticky:
            return False
        arms = tuple((arm["name"], arm["version"]) for arm in found["arms"])
        return arms == tuple(zip(self.experiment.arms, self.experiment.versions, strict=True))

    def is_anothers(self, found: Any) -> bool:
        """Return whether somebody else split the requests."""
        return found is not None and not self.is_ours(found)

    def looks(self) -> Iterator[tuple[str, RemoteSplit, dict[str, Any] | None, str]]:
        """Yield of each service its address, what it says of its split, and what is wrong; None where nothing is
        said."""
        for url, split in self.splits().items():
            try:
                found = split.show()
            except HoneError as error:
                yield url, split, None, str(error)
                continue
            if found["split"] is None:
                yield url, split, found, "it has no split: it was started anew, or somebody ended it"
            elif not self.is_ours(found["split"]):
                yield url, split, found, "its split is another one: somebody changed it"
            elif tuple(arm["weight"] for arm in found["split"]["arms"]) != self.experiment.weights_now:
                yield url, split, found, "its weights are others"
            else:
                yield url, split, found, ""

    def end(self, answer: str) -> None:
        """Give all requests to an arm, in every service; each changes at one moment.

        Raises:
            ExperimentError: not every service does; those that could be reached do.
        """
        wrong = []
        splits = self.splits()
        for split in splits.values():
            try:
                self._end(split, answer)
            except HoneError as error:
                wrong.append(str(error))
        if wrong:
            done = f"{len(splits) - len(wrong)} of {len(splits)} services have ended it"
            message = f"{done}: {wrong[0]}; hone ab stop {self.experiment.name} goes on with the others"
            raise ExperimentError(message)

    def _end(self, split: RemoteSplit, answer: str) -> None:
        """Give all requests to an arm in one service; one that was started anew gets the split first, to know it."""
        found = split.show()["split"]
        if self.is_anothers(found):
            raise ExperimentError(f"{split.url}: its split is another one: somebody changed it")
        if found is None and split.answers() == self.experiment.versions[self.experiment.arms.index(answer)]:
            return
        if found is None:
            self.put(split)
        split.clear(answer=answer)


def _clear_quietly(split: RemoteSplit, answer: str) -> None:
    try:
        split.clear(answer=answer)
    except HoneError:
        return  # what went wrong first is told; a service that is out of reach is shown by status


def access_of(experiment: Experiment, api_key: str) -> Access:
    return Access(api_key, Path(experiment.ca) if experiment.ca else None)
