"""Worker processes for passes: a crash, a leak or a framework's threads stay out of the main process."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone import __version__, runtimes
from hone.artifact import EXAMPLE, Artifact, PassRecord, seal
from hone.cache import run_in
from hone.errors import HoneError, PassError, one_line
from hone.files import atomic_directory
from hone.hardware import tool_versions
from hone.recipe import load_recipe
from hone.runtimes.base import Runtime
from hone.signature import TensorSpec

from ..passes import PassContext, Rows, all_passes

EXAMPLE_BYTES = 64_000


@dataclass(frozen=True)
class PassTask:
    """One pass to run: its input and where its output goes."""

    name: str
    options: dict[str, Any]
    parent: Path
    target: Path
    recipe: Path
    rows: Rows | None = None
    """The data of the run; None asks the recipe's data functions."""


@dataclass(frozen=True)
class Failure:
    """An error in a worker, in a form that travels between processes."""

    message: str
    expected: bool
    detail: str = ""
    exit_code: int = 1


EXIT_S = 2.0
"""So long the processes of a broken pool may take to be gone."""


class Workers:
    """A pool of processes that run passes; a worker that dies fails its own pass only."""

    def __init__(self, jobs: int, on_message: Callable[[str], None]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._jobs = jobs
        self._messages = self._context.Queue()
        self._on_message = on_message
        self._pool = self._new_pool()
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, self._context, initializer=_initialize, initargs=(self._messages,))

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                self._on_message(self._messages.get(timeout=0.2))
            except queue.Empty:
                continue

    def submit(self, task: PassTask) -> Future[Path | Failure]:
        return self.call(run_pass, task)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a module-level function in a worker."""
        try:
            return self._pool.submit(guarded, function, *arguments)
        except BrokenProcessPool:
            # A worker died under an earlier task, which has its own failure; later tasks get new processes.
            self._pool = self._new_pool()
            return self._pool.submit(guarded, function, *arguments)

    @staticmethod
    def wait(futures: Iterable[Future[Any]]) -> set[Future[Any]]:
        pending = set(futures)
        return wait_futures(pending, return_when=FIRST_COMPLETED).done if pending else set()

    @property
    def jobs(self) -> int:
        return self._jobs

    @staticmethod
    def was_killed(future: Future[Any]) -> bool:
        """True when a worker died under this task, its own or a neighbor."""
        return isinstance(future.exception(), BrokenProcessPool)

    def result(self, future: Future[Any]) -> Any:
        """Return what the function returned, or a Failure; with --debug, its traceback goes to standard error."""
        try:
            result = future.result()
            if isinstance(result, Failure) and os.environ.get("HONE_DEBUG"):
                sys.stderr.write(result.detail)
            return result
        except BrokenProcessPool:
            return Failure(f"the worker process was killed{self._killer()}", expected=True)

    def _killer(self) -> str:
        """Say what ended a worker: its fellows, which are ended for it, got SIGTERM."""
        processes = list((self._pool._processes or {}).values())
        patience = time.monotonic() + EXIT_S
        while any(process.exitcode is None for process in processes) and time.monotonic() < patience:
            time.sleep(0.02)  # the pool's own thread waits for them, too
        names = {signal.Signals(-code).name for process in processes if (code := process.exitcode or 0) < 0}
        crashed = sorted(names & {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"})
        if crashed:
            return (
                f" by {crashed[0]}: a native library crashed on this model; leave this variant out, or report it there"
            )
        return "; most often the host ran out of memory (see dmesg)"

    def close(self, *, kill: bool = False) -> None:
        """Stop the workers: after their current task, or at once when `kill`."""
        if kill:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._closed.set()
        self._reader.join()


@contextlib.contextmanager
def workplace(jobs: int, on_message: Callable[[str], None], prefix: str) -> Iterator[tuple[Workers, Path]]:
    """Give workers and a scratch folder for a run; both are gone afterwards, the workers at once when it fails."""
    scratch = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with run_in(scratch):
            workers = Workers(jobs, on_message)
            try:
                yield workers, scratch
            except BaseException:
                workers.close(kill=True)
                raise
            workers.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_messages: Any = None


def _initialize(messages: Any) -> None:
    """Ctrl-C is for the main process, which then ends the workers by SIGTERM; that must unwind, so that
    half-written folders are removed."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _raise_exit())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _raise_exit() -> None:
    raise SystemExit(1)


def report(message: str) -> None:
    if _messages is not None:
        _messages.put(message)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function and return its result, or its error as a Failure."""
    try:
        return function(*arguments)
    except HoneError as error:
        return Failure(str(error), expected=True, detail=traceback.format_exc(), exit_code=error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return Failure(f"{place}{error.strerror or one_line(error)}", expected=True, detail=traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - a worker's every error must reach the main process
        message = f"{type(error).__name__}: {one_line(error)}"
        return Failure(message, expected=False, detail=traceback.format_exc())


def run_pass(task: PassTask) -> Path:
    """Run one pass, check what it wrote and move it to its place in the cache."""
    definition = all_passes()[task.name]
    parent = Artifact.open(task.parent)
    loaded = load_recipe(task.recipe)
    context = PassContext(loaded, parent.signature, lambda text: report(f"{task.name}: {text}"), task.rows)
    options = definition.options.model_validate(task.options)
    started = time.perf_counter()
    with _named_disk(task), atomic_directory(task.target) as out:
        built = definition.function(parent, options, out, context)
        record = PassRecord(
            name=task.name,
            options=task.options,
            parent=parent.digest,
            seconds=round(time.perf_counter() - started, 3),
            details=built.details,
        )
        manifest = parent.manifest
        after = context
        if built.signature and built.signature.inputs != parent.signature.inputs:
            after = PassContext(loaded, built.signature, context.progress, task.rows)
        if definition.output_of(parent.runtime) != parent.runtime or parent.runtime == "onnx":
            _write_example(after, out)
        artifact = seal(
            out,
            manifest.model_copy(
                update={
                    "runtime": definition.output_of(parent.runtime),
                    "precision": built.precision or manifest.precision,
                    "entry": built.entry,
                    "signature": built.signature or manifest.signature,
                    "runtime_options": manifest.runtime_options
                    if built.runtime_options is None
                    else built.runtime_options,
                    "requires": manifest.requires if built.requires is None else built.requires,
                    "lineage": (*manifest.lineage, record),
                    "tools": {**manifest.tools, **tool_versions(*definition.tools), "hone": __version__},
                }
            ),
        )
        check_runs(artifact, after)
    return task.target


@contextlib.contextmanager
def _named_disk(task: PassTask) -> Iterator[None]:
    """A full or read-only disk is reported with its folder: the operating system's error often names no file."""
    try:
        yield
    except OSError as error:
        place = error.filename or task.target.parent
        raise PassError(f"{task.name}: {place}: {error.strerror or one_line(error)}") from error


def _write_example(context: PassContext, out: Path) -> None:
    """Keep a few real rows beside the model: they are the example in the service's documentation."""
    rows = {
        name: array[:2].tolist() if array.dtype.kind != "f" else np.round(array[:2].astype(float), 6).tolist()
        for name, array in context.sample.inputs.items()
    }
    text = json.dumps({"inputs": rows})
    if len(text) <= EXAMPLE_BYTES:
        (out / EXAMPLE).write_text(text)


def check_runs(artifact: Artifact, context: PassContext) -> None:
    """Load what a pass wrote and run sample rows of two batch sizes: an export can pass and still be unloadable.

    Raises:
        PassError: it doesn't load, or its outputs don't have the signature's names, dtypes and shapes.
    """
    runtime = runtimes.load(artifact)
    try:
        for rows in (1, context.sample.rows):
            _check_outputs(runtime, artifact, context.sample.head(rows).inputs)
    finally:
        runtime.close()


def _check_outputs(runtime: Runtime, artifact: Artifact, inputs: dict[str, np.ndarray]) -> None:
    name = artifact.manifest.lineage[-1].name if artifact.manifest.lineage else artifact.runtime
    try:
        outputs = runtime.run({spec.name: inputs[spec.name] for spec in artifact.signature.inputs})
    except Exception as error:
        rows = len(next(iter(inputs.values())))
        raise PassError(f"{name}: the result loads but fails on {rows} row(s): {one_line(error)}") from error
    for spec in artifact.signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise PassError(f"{name}: the result has no output '{spec.name}', it has {list(outputs)}")
        _check_output(name, spec, array, len(next(iter(inputs.values()))))


def _check_output(name: str, spec: TensorSpec, array: np.ndarray, rows: int) -> None:
    if array.dtype.kind not in "OUS" and array.dtype != spec.numpy_dtype:
        raise PassError(f"{name}: output '{spec.name}' is {array.dtype}, the source model gives {spec.dtype}")
    fits = array.ndim == len(spec.shape) and all(
        size == axis for axis, size in zip(spec.shape, array.shape, strict=False) if isinstance(axis, int)
    )
    if not fits or (spec.batchable and len(array) != rows):
        raise PassError(
            f"{name}: output '{spec.name}' has shape {list(array.shape)} for {rows} row(s), expected {spec.describe()}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PassError(f"{name}: output '{spec.name}' holds NaN or infinity on sample rows; the precision is too low")
