"""A model's life after its deployment, in about five minutes: `make demo-loop`.

Served, its inputs change, labels that come later show that quality is lost, it is retrained and proven, rolled out step
by step under load, and quality is back. Then it is retrained on labels that are wrong: nothing that is served changes,
and the report says why. All of it is Hone's own commands; this file only plays the world around them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from traffic import Callers, Rows, accuracy, digits, post, scanned

NAME = "scanner"
HONE = "from hone.cli.main import main; main()"
HERE = Path(__file__).parent
ASKED = 450
"""Labeled answers of each chapter: the quick look takes the newest 400."""
PLACES = {"train": slice(0, 600), "judge": slice(600, 900), "before": slice(900, 1500), "after": slice(1500, None)}
"""Of the digits: what is trained and judged with, what callers send before the retraining, and after it."""


@dataclass
class Story:
    """What happened, for the reader and for whoever checks it.

    Attributes:
        folder: of everything: the project, the store, what the service keeps, and reports.
        facts: by name.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    chapter: int = 0

    def say(self, title: str, *lines: str) -> None:
        self.chapter += 1
        sys.stdout.write(f"\n{self.chapter}. {title}  [{time.monotonic() - self.began:.0f} s]\n")
        self.add(*lines)

    def add(self, *lines: str) -> None:
        for line in lines:
            sys.stdout.write(f"   {line}\n")
        sys.stdout.flush()

    def hone(self, *arguments: str, fine: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """Run a command and tell it; return its exit status and what it printed."""
        shown = " ".join(arguments).replace(str(self.folder), ".")
        done = subprocess.run([sys.executable, "-c", HONE, *arguments], capture_output=True, text=True, check=False)
        text = (done.stdout + done.stderr).strip()
        self.add(f"$ hone {shown}   -> exit status {done.returncode}")
        if done.returncode not in fine:
            raise SystemExit(f"hone {shown} ended with {done.returncode}:\n{text}")
        return done.returncode, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/loop"), help="Folder; what is in it goes.")
    folder = parser.parse_args().out.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE, folder / "project", ignore=shutil.ignore_patterns("__pycache__", "loop.py", "traffic.py"))
    # A store, a cache and a registry of its own: the reader's stay as they are.
    os.environ.update(BENTOML_HOME=str(folder / "home"), HONE_CACHE=str(folder / "cache"))
    story = Story(folder)
    tell(story)
    (folder / "story.json").write_text(json.dumps(story.facts, indent=2) + "\n")
    story.add("", f"all of it is in {folder}: quality.html draws what labels showed, story.json has the facts")


def tell(story: Story) -> None:
    everything = digits()
    parts = {name: everything.of(np.arange(len(everything.labels))[place]) for name, place in PLACES.items()}
    begin(story, parts)
    with served(story) as url, Callers(url, NAME, scanned(parts["before"], new_scanner=False, seed=1)) as callers:
        live(story, callers)
        change(story, callers, parts["before"])
        retrain(story, parts["before"])
        roll_out(story, callers, url, parts["after"])
        worse(story, callers, url)
        story.facts.update(requests=callers.total, failed=callers.failed)
    story.say("The end", f"{callers.total:,} requests were answered all the while, {len(callers.failed)} failed")


def begin(story: Story, parts: dict[str, Rows]) -> None:
    keep(story, "rows.npz", scanned(parts["train"], new_scanner=False, seed=2))
    keep(story, "evaluation.npz", scanned(parts["judge"], new_scanner=False, seed=3))
    story.say("A classifier of handwritten digits is trained, optimized, proven, and made the champion")
    story.hone("optimize", recipe(story), "--out", str(story.folder / "report"))
    story.hone("registry", "promote", NAME, "--reason", "the first")
    story.facts["first"] = champion()


def live(story: Story, callers: Callers) -> None:
    story.say("It is served; callers send pictures of the scanner that it knows, and labels come later")
    label(story, callers, "accuracy_before")
    status, text = story.hone("feedback", "check", f"{NAME}@champion", fine=(0, 4, 5))
    story.add(first_line(text))
    story.facts["checked_before"] = status


def change(story: Story, callers: Callers, rows: Rows) -> None:
    story.say("Somebody buys a new scanner: pictures are a pixel to the right, and paler")
    changed, callers.rows = time.time(), scanned(rows, new_scanner=True, seed=4)
    answered = callers.taken(ASKED)
    time.sleep(3)  # sketches and answers are written each second
    sketches = str(story.folder / "sketches")
    status, text = story.hone("drift", "check", f"{NAME}@champion", "--dir", sketches, fine=(0, 3, 4))
    story.add(first_line(text), "drift says that inputs moved, not what that costs; no label has come yet:")
    story.facts["drift"] = status
    since = f"{int(time.time() - changed)}s"
    _, text = story.hone("feedback", "check", f"{NAME}@champion", "--since", since, fine=(4, 5))
    story.add(*[line for line in text.splitlines() if "estimate without labels" in line][-1:])
    label(story, callers, "accuracy_lost", answered)
    status, text = story.hone("feedback", "check", f"{NAME}@champion", fine=(3,))
    story.add(first_line(text))
    story.facts["checked_lost"] = status
    story.hone("feedback", "report", f"{NAME}@champion", "--html", str(story.folder / "quality.html"))


def retrain(story: Story, rows: Rows) -> None:
    story.say(
        "Labels of the new scanner's pictures are in the training data; hone retrain watch sees that quality is lost"
    )
    learn, judge = np.arange(0, 400), np.arange(400, len(rows.labels))
    pixels = [scanned(rows.of(learn), new_scanner=True, seed=seed).pixels for seed in (5, 6)]
    keep(story, "rows.npz", Rows(np.concatenate(pixels), np.tile(rows.labels[learn], 2)))
    both = [scanned(rows.of(judge), new_scanner=True, seed=seed).pixels for seed in (7, 8)]
    keep(story, "evaluation.npz", Rows(np.concatenate(both), np.tile(rows.labels[judge], 2)))
    command = [sys.executable, "-c", HONE, "retrain", "watch", recipe(story), "--every", "2"]
    story.add("$ hone retrain watch recipe.yaml --every 2")
    with (story.folder / "watch.log").open("w") as log:
        watch = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            run = ended_run(watch, story.folder / "watch.log")
        finally:
            watch.send_signal(signal.SIGINT)
            watch.wait(30)
    story.add(f"because: {run['trigger']}", f"{run['outcome']}: {run['detail']}")
    story.facts.update(trigger=run["trigger"], outcome=run["outcome"], candidate=run["candidate"])


def ended_run(watch: subprocess.Popen[bytes], log: Path, timeout_s: float = 400.0) -> dict[str, Any]:
    """Return the run that a watch has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and watch.poll() is None:
        shown = subprocess.run(
            [sys.executable, "-c", HONE, "retrain", "status", NAME, "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        for line in shown.stdout.splitlines():
            run: dict[str, Any] = json.loads(line)
            if run["outcome"]:
                return run
        time.sleep(2)
    raise SystemExit(f"no run has ended:\n{log.read_text()}")


def roll_out(story: Story, callers: Callers, url: str, rows: Rows) -> None:
    story.say("The new model is proven beside the champion, and gets more and more of the requests")
    callers.rows = scanned(rows, new_scanner=True, seed=9)
    _, text = story.hone(*rollout(url))
    story.add(*text.splitlines()[-4:])
    story.facts["second"] = champion()
    story.say("Quality is back")
    label(story, callers, "accuracy_after")
    status, text = story.hone("feedback", "check", f"{NAME}@champion", fine=(0, 4, 5))
    story.add(first_line(text))
    story.facts["checked_after"] = status


def worse(story: Story, callers: Callers, url: str) -> None:
    story.say("A month later most labels in the training data are mixed up, and somebody retrains by hand")
    with np.load(story.folder / "project" / "rows.npz") as file:
        rows = Rows(file["pixels"], file["label"])
    generator = np.random.default_rng(10)
    mixed = np.where(generator.random(len(rows.labels)) < 0.6, generator.permutation(rows.labels), rows.labels)
    keep(story, "rows.npz", Rows(rows.pixels, mixed))
    story.hone("retrain", "run", recipe(story), "--trigger", "new labels")
    status, text = story.hone(*rollout(url), fine=(1, 3, 4))
    story.add(*text.splitlines()[-3:], "what is served has not changed:")
    label(story, callers, "accuracy_kept")
    story.facts.update(refused=status, why=text, third=champion())


def rollout(url: str) -> list[str]:
    """Return a rollout that a busy laptop can decide within a minute: of failures and slow answers it allows a lot."""
    return [
        *("rollout", "start", NAME, "--to", "candidate", "--url", url, "--steps", "25,60,100"),
        *("--window", "4s", "--patience", "240s", "--errors", "0.1", "--p99", "0.3", "--reason", "the new scanner"),
    ]


def label(story: Story, callers: Callers, fact: str, answered: list[tuple[str, int, int]] | None = None) -> None:
    """Let labels of answers come to the service, as some business system would send them."""
    answered = callers.taken(ASKED) if answered is None else answered
    time.sleep(3)  # answers are written each second
    entries = [{"request_id": identity, "label": right} for identity, right, _ in answered]
    content, _ = post(f"{callers.url}/models/{NAME}/feedback", {"feedback": entries})
    story.facts[fact] = accuracy(answered)
    story.add(
        f"POST /models/{NAME}/feedback: {content['accepted']} labels; {accuracy(answered):.1%} of answers were right"
    )


def keep(story: Story, name: str, rows: Rows) -> None:
    np.savez(story.folder / "project" / name, pixels=rows.pixels, label=rows.labels)


def recipe(story: Story) -> str:
    return str(story.folder / "project" / "recipe.yaml")


def first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def champion() -> str:
    """Return the tag of what is meant to be served."""
    from hone import store

    return store.resolve(f"{NAME}@champion").tag


@contextlib.contextmanager
def served(story: Story) -> Iterator[str]:
    """Serve the champion on a free port, with a folder for what it sketches, and one for answers and labels."""
    from hone.services.launch import end, free_port

    port = free_port()
    os.environ.update(HONE_FEEDBACK_DIR=str(story.folder / "answers"), HONE_FEEDBACK_FLUSH_S="1")
    # Not for the rollout, whose gate of drift would find both scanners in the one hour that all of this takes.
    sketches = {"HONE_DRIFT_DIR": str(story.folder / "sketches"), "HONE_DRIFT_FLUSH_S": "1"}
    command = [sys.executable, "-c", HONE, "serve", f"{NAME}@champion", "--port", str(port)]
    with (story.folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **sketches})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process, story.folder / "serve.log")
        yield url
    finally:
        end(process)


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return
        time.sleep(0.2)
    raise SystemExit(f"the service did not start:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
