"""Why torch can't trace a model, in words: the layer and line of the user's code, and what usually mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hone.errors import PassError, one_line
from hone.signature import Signature
from hone.userload import deepest_line

if TYPE_CHECKING:
    import torch

REMEDY = "write the branch or loop with torch operations (torch.where, torch.cond), or move it out of forward"
PADDED = "run the recurrent layer on the padded rows, and pick each row's last valid step with torch.gather"


def explained(error: Exception, module: torch.nn.Module, signature: Signature, step: str) -> PassError:
    """Say which layer and line of the user's model stopped the exporter, why, and what usually mends it."""
    cause = cause_of(error)
    text = str(cause)
    network = getattr(module, "module", module) if type(module).__name__ == "Flat" else module
    name = type(network).__name__
    if "Constraints violated" in text or "specialized" in text or "ConstraintViolation" in text:
        return PassError(
            f"{step}: a dynamic axis of {signature.dynamic_axes} is burnt into {name}: "
            f"{_line_with(text, *signature.dynamic_axes)}; "
            "use tensor.shape in forward instead of a number, or give the axis a fixed size in the signature"
        )
    packed = _holds_packed_sequence(cause)
    reason = "packed sequences can't be traced" if packed else f"{type(cause).__name__}: {one_line(cause)}"
    where = f"{_layer(cause, network)}{deepest_line(cause)}"
    return PassError(f"{step}: torch can't trace {name}{where}: {reason}; {PADDED if packed else REMEDY}")


def cause_of(error: BaseException) -> BaseException:
    """Return what an exporter's error began with: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _holds_packed_sequence(error: BaseException) -> bool:
    from torch.nn.utils.rnn import PackedSequence

    return any(isinstance(value, PackedSequence) for frame in _frames(error) for value in frame.f_locals.values())


def _layer(error: BaseException, network: torch.nn.Module) -> str:
    """Return ` in layer 'NAME'` of the innermost layer of the model that an error came out of."""
    names = {id(part): name for name, part in network.named_modules() if name}
    inside = [names[id(frame.f_locals["self"])] for frame in _frames(error) if id(frame.f_locals.get("self")) in names]
    return f" in layer '{inside[-1]}'" if inside else ""


def _frames(error: BaseException) -> Iterator[Any]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _line_with(text: str, *words: str) -> str:
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    telling = [line for line in lines[1:] if any(re.search(rf"\b{re.escape(word)}\b", line) for word in words)]
    return (telling or lines or ["no reason given"])[0][:200]
