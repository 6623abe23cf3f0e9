"""What runs in a process apart: it loads a model's Python, and answers batches until the other side is gone.

Started by `process.py` with two file descriptors: a socket for messages, and a pipe that nothing is ever written to.
When that one closes, Hone has ended, however it did, and the kernel ends this process and those that it started.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hone.apart import wire
from hone.errors import did_you_mean, one_line

Predict = Callable[[dict[str, np.ndarray]], Any]


class AnswerError(Exception):
    """What a model returned is no answer."""


class SocketLink:
    """The socket to Hone; waits as long as it takes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, data: memoryview) -> None:
        self._socket.sendall(data)

    def receive(self, into: memoryview) -> None:
        while into:
            got = self._socket.recv_into(into)
            if not got:
                raise EOFError
            into = into[got:]


def end_with(pipe: int) -> None:
    """End this process group when the other end of a pipe closes, even while C code holds the interpreter."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux the thread has to do
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO: it ends who gets it

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(pipe, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="hone-end").start()


def loaded(folder: Path, form: str, reference: str) -> Predict:
    """Return a model's function, from a folder with its module and files.

    Raises:
        AnswerError: there is no such function, or what `load` returned can't be called.
        Exception: what the module, or `load`, raised.
    """
    name, _, function_name = reference.partition(":")
    sys.path.insert(0, str(folder))
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(folder.resolve()):
        raise AnswerError(f"module '{name}' is also one of Python's; give yours another name")
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise AnswerError(f"module '{name}' has no function '{function_name}'{did_you_mean(function_name, known)}")
    if form == "predict":
        return function
    predict = function(folder)
    if not callable(predict):
        raise AnswerError(f"{reference} returned a {type(predict).__name__}, not a function of tensors")
    return predict


def answered(given: Any, wanted: list[str]) -> dict[str, np.ndarray]:
    """Return what a model returned as tensors: those that are wanted, or all.

    Raises:
        AnswerError: it is no dict of arrays, or lacks one.
    """
    if not isinstance(given, Mapping):
        raise AnswerError(f"returned a {type(given).__name__}, not a dict of arrays by name")
    names = wanted or [str(name) for name in given]
    if not names:
        raise AnswerError("returned an empty dict")
    missing = [name for name in names if name not in given]
    if missing:
        raise AnswerError(f"returned no '{missing[0]}', only {', '.join(map(repr, given)) or 'an empty dict'}")
    return {name: _tensor(name, given[name]) for name in names}


def _tensor(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # noqa: BLE001 - rows of several lengths, and whatever a class of the user's raises
        raise AnswerError(f"returned '{name}' that is no array: {one_line(error)}") from None
    if array.dtype.kind in "US":
        return array.astype(str).astype(object)
    if array.dtype.kind == "O":
        strange = next((item for item in array.ravel().tolist() if not isinstance(item, str)), None)
        if strange is not None:
            raise AnswerError(f"returned '{name}' with objects of {type(strange).__name__}; give it a dtype")
        return array
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise AnswerError(f"returned '{name}' as {array.dtype}, which no tensor has")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def raised(error: BaseException, folder: Path) -> str:
    """Return what was raised, and on which line of the model's own files."""
    place, trace = "", error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(folder):
            place = f" ({file.relative_to(folder).as_posix()}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"raised {type(error).__name__}: {one_line(error)}{place}"


def serve(link: SocketLink, folder: Path, reference: str, form: str, most: int) -> None:
    """Load a model, say so, and answer batches until the other side is gone."""
    try:
        predict = loaded(folder, form, reference)
    except AnswerError as error:
        wire.send(link, {"kind": "start", "problem": str(error)})
        return
    except BaseException as error:  # noqa: BLE001 - it is the user's code
        traceback.print_exc()
        wire.send(link, {"kind": "start", "problem": raised(error, folder)})
        return
    wire.send(link, {"kind": "ready"})
    while True:
        try:
            message, inputs = wire.receive(link, sys.maxsize)
        except EOFError:
            return
        kind, problem, outputs = _one(predict, inputs, message["outputs"], folder, most)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        wire.send(link, {"kind": kind, "problem": problem}, outputs)


def _one(
    predict: Predict, inputs: dict[str, np.ndarray], wanted: list[str], folder: Path, most: int
) -> tuple[str, str, dict[str, np.ndarray]]:
    """Return what became of a batch: `done`, `rows` for rows that the model refuses, or `failed`, and why."""
    try:
        outputs = answered(predict(inputs), wanted)
        size = wire.size_of(iter(outputs.values()))
        if size > most:
            raise AnswerError(f"returned {size / 1e6:,.0f} MB; at most {most / 1e6:g} MB may be (answer_mb)")
    except AnswerError as error:
        return "failed", str(error), {}
    except ValueError as error:
        return "rows", one_line(error), {}
    except BaseException as error:  # noqa: BLE001 - it is the user's code
        traceback.print_exc()
        return "failed", raised(error, folder), {}
    return "done", "", outputs


def main() -> None:
    """Begin with what the command line says: `{"socket": 3, "pipe": 4, "folder": …}`."""
    asked = json.loads(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT):  # told to all below a server that stops, and still answers
        signal.signal(number, lambda *_: None)
    end_with(asked["pipe"])
    connection = socket.socket(fileno=asked["socket"])
    sys.argv = [asked["reference"]]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(SocketLink(connection), Path(asked["folder"]), asked["reference"], asked["form"], asked["most"])
