"""What a search may choose from: chains of passes for a source, with the options worth trying."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hone.recipe import Recipe

from .. import sources
from ..passes import all_passes

if TYPE_CHECKING:
    import optuna

Chain = tuple[dict[str, dict[str, Any]], ...]
Choices = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Space:
    """Names and values of what can be chosen; some choices matter only after others.

    Attributes:
        choices: every parameter with its values, the plain one first.
    """

    choices: Choices

    @property
    def identity(self) -> list[Any]:
        """What makes two spaces the same: for the name of a study."""
        return [[name, list(values)] for name, values in self.choices.items()]

    def suggest(self, trial: optuna.trial.Trial) -> Chain:
        """Let a trial choose; parameters that don't matter for what it has chosen are not asked for."""
        proposal: dict[str, Any] = {}
        for name in self.choices:
            if self._matters(name, proposal):
                proposal[name] = trial.suggest_categorical(name, self.choices[name])
        return self.chain(proposal)

    def first(self) -> list[dict[str, Any]]:
        """Return what is tried before anything is learned: each precision with everything else plain."""
        proposals = []
        for graph in self.choices["graph"]:
            for precision in self.choices["precision"]:
                proposal: dict[str, Any] = {}
                for name, values in self.choices.items():
                    if self._matters(name, {**proposal, "graph": graph, "precision": precision}):
                        proposal[name] = {"graph": graph, "precision": precision}.get(name, values[0])
                proposals.append(proposal)
        return proposals

    def all(self) -> list[dict[str, Any]]:
        """Return every proposal there is."""
        proposals: list[dict[str, Any]] = [{}]
        for name, values in self.choices.items():
            proposals = [
                {**proposal, **choice}
                for proposal in proposals
                for choice in ([{name: value} for value in values] if self._matters(name, proposal) else [{}])
            ]
        return proposals

    def _matters(self, name: str, proposal: dict[str, Any]) -> bool:
        precision = proposal.get("precision")
        if name in ("bits", "block_size"):
            return precision == "quantize_weights"
        if name in ("method", "activation"):
            return precision == "quantize_static"
        if name in ("mixed", "smooth"):
            return precision in ("quantize_dynamic", "quantize_static") or (
                name == "mixed" and precision == "quantize_weights"
            )
        return name != "tune" or precision not in ("openvino", "quantize_nncf")

    def chain(self, proposal: dict[str, Any]) -> Chain:
        """Turn choices into passes."""
        passes: list[dict[str, dict[str, Any]]] = []
        if proposal.get("prune"):
            passes.append({"prune": {"ratio": proposal["prune"]}})
        passes += [{"export": {}}, {proposal["graph"]: {}}]
        precision = proposal["precision"]
        tuned: Chain = ({"tune": {}},) if proposal.get("tune") else ()
        if precision == "float32":
            return (*passes, *tuned)
        if precision == "openvino":
            return (*passes, {precision: {}})
        if precision == "quantize_nncf":
            return (*passes, {"openvino": {}}, {precision: {}})
        if proposal.get("smooth"):
            passes.append({"smooth": {}})
        options: dict[str, Any] = {}
        if precision == "quantize_weights":
            options = {"bits": proposal["bits"], "block_size": proposal["block_size"]}
        elif precision == "quantize_static":
            options = {"method": proposal["method"], "activation_type": proposal["activation"]}
        if proposal.get("mixed"):
            return (*passes, {"quantize_mixed": {"by": precision, "options": options}}, *tuned)
        return (*passes, {precision: options}, *tuned)


def for_recipe(recipe: Recipe, framework: str) -> Space:
    """Return the space for a recipe: what its source, its data and this host allow."""
    source = sources.get(framework)
    precisions = ["float32"]
    graphs = ["simplify"]
    choices: Choices = {}
    if source.multiplies:
        precisions += ["quantize_dynamic", "quantize_weights"]
        if recipe.calibration is not None:
            precisions.append("quantize_static")
        if find_spec("openvino") is not None:
            precisions.append("openvino")
            if recipe.calibration is not None and find_spec("nncf") is not None:
                precisions.append("quantize_nncf")
        if source.has_attention:
            graphs.append("fuse")
        if all_passes()["prune"].accepts(framework) and recipe.train is not None:
            choices["prune"] = (0.0, 0.25, 0.5, 0.7)
    choices |= {"graph": tuple(graphs), "precision": tuple(precisions)}
    if source.multiplies:
        choices |= {"bits": (8, 4), "block_size": (32, 64, 128)}
        if recipe.calibration is not None:
            choices |= {
                "method": ("minmax", "percentile", "entropy"),
                "activation": ("quint8", "qint8"),
                "smooth": (False, True),
                "mixed": (False, True),
                "tune": (False, True),
            }
    return Space(choices)
