"""Folders as `transformers` saves them: `config.json`, weights as safetensors, and how sentences are pooled.

Nothing of a folder is run: the classes are those of `transformers`, weights are tensors, and files are never fetched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ArtifactError, UnavailableError, one_line

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MODULES, POOLING = "modules.json", "1_Pooling/config.json"
LENGTHS = "sentence_bert_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",  # no password  # nosec B105
    "pooling_mode_max_tokens": "max",
}
CLASSIFIES, ENCODES = "ForSequenceClassification", "Model"


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        path: of it.
        config: `config.json`.
        classifies: sequences are classified; else they are encoded.
        pooling: of an encoder's tokens: `mean`, `cls` or `max`.
        normalized: encodings get length 1.
        said: where the pooling is from: the folder says it.
    """

    path: Path
    config: dict[str, Any]
    classifies: bool
    pooling: str = "mean"
    normalized: bool = False
    said: bool = True

    @property
    def output(self) -> str:
        return "logits" if self.classifies else "embedding"

    @property
    def input_names(self) -> list[str]:
        """Token types tell the two texts of a pair apart, which classifiers take, and encoders don't."""
        types = ["token_type_ids"] if self.classifies and int(self.config.get("type_vocab_size") or 0) > 1 else []
        return ["input_ids", "attention_mask", *types]

    @property
    def files(self) -> list[str]:
        """Return what a model is loaded from, relative to the folder; the tokenizer isn't.

        Raises:
            ArtifactError: the weights' index names a file outside of the folder.
        """
        names = [CONFIG, MODULES, POOLING, LENGTHS]
        if (self.path / WEIGHTS).is_file():
            names.append(WEIGHTS)
        else:
            parts = sorted(set(map(str, _read(self.path / INDEX).get("weight_map", {}).values())))
            outside = [part for part in parts if Path(part).name != part or not part.endswith(".safetensors")]
            if outside or not parts:
                raise ArtifactError(
                    f"{self.path / INDEX}: names no safetensors of this folder{f': {outside[0]}' if outside else ''}"
                )
            names += [INDEX, *parts]
        return [name for name in names if (self.path / name).is_file()]

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        limit = _read(self.path / LENGTHS).get("max_seq_length")
        return min(int(limit or 512), int(self.config.get("max_position_embeddings") or 512))


def is_folder(path: Path) -> bool:
    """Return whether a folder is one of `transformers`: it has a configuration that names a kind of model."""
    return path.is_dir() and "model_type" in _read(path / CONFIG)


def read_folder(path: Path) -> Folder:
    """Return what a folder holds.

    Raises:
        ArtifactError: it would run code, its weights are no safetensors, or it is no encoder and no classifier.
    """
    config, name = _read(path / CONFIG), _architecture(path)
    if "auto_map" in config:
        raise ArtifactError(f"{path}: {CONFIG} names code of its own (auto_map), which is never run; export it to ONNX")
    if not (path / WEIGHTS).is_file() and not (path / INDEX).is_file():
        pickled = next((file for file in PICKLES if (path / file).is_file()), "")
        what = f"its weights are {pickled}, a pickle" if pickled else f"it has no {WEIGHTS}"
        raise ArtifactError(f"{path}: {what}; save it with save_pretrained(folder), which writes safetensors")
    if name.endswith(CLASSIFIES):
        return Folder(path, config, classifies=True)
    if (path / MODULES).is_file():
        return _encoder(path, config)
    if not name.endswith(ENCODES) or config.get("is_encoder_decoder"):
        raise ArtifactError(
            f"{path}: {name} is neither an encoder nor a classifier of sequences; export it to ONNX, or write a "
            "source.loader that returns the module"
        )
    return Folder(path, config, classifies=False, said=False)


def _architecture(path: Path) -> str:
    names = _read(path / CONFIG).get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ENCODES


def _encoder(path: Path, config: dict[str, Any]) -> Folder:
    """Return what the files of sentence-transformers say of a folder."""
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads((path / MODULES).read_text())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path / MODULES}: not readable: {one_line(error)}") from None
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise ArtifactError(
            f"{path / MODULES}: {unknown[0]} layers are not known; write a source.loader for this model"
        )
    pooled = _read(path / POOLING)
    modes = [POOLINGS.get(key, key) for key, value in pooled.items() if key.startswith("pooling_mode_") and value]
    modes = [str(pooled["pooling_mode"])] if isinstance(pooled.get("pooling_mode"), str) else modes or ["mean"]
    if len(modes) > 1 or modes[0] not in POOLINGS.values():
        raise ArtifactError(f"{path / POOLING}: pooling by {', '.join(modes)} is not known; mean, cls or max is")
    return Folder(path, config, False, modes[0], "Normalize" in kinds)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def require() -> None:
    """Raise UnavailableError when `transformers` is not installed."""
    if find_spec("transformers") is None:
        raise UnavailableError("transformers is not installed", "pip install 'hone[transformers]'")


def load_folder(path: Path, attention: str = "sdpa") -> torch.nn.Module:
    """Return the module of a folder: tokens to one vector, or to the scores of classes.

    Args:
        path: the folder.
        attention: how it is computed, as `transformers` calls it; `eager` exports to fewer operators.

    Raises:
        ArtifactError: the folder is not one that can be read, or its weights don't fit.
        UnavailableError: `transformers` is not installed.
    """
    require()
    folder = read_folder(path)
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind = AutoModelForSequenceClassification if folder.classifies else AutoModel
    try:
        model, found = kind.from_pretrained(
            str(path),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except Exception as error:
        raise ArtifactError(f"{path}: transformers can't load it: {one_line(error)}") from error
    lacking = sorted(name for name in found.get("missing_keys", ()) if not name.startswith("pooler."))
    if lacking:
        raise ArtifactError(f"{path}: the weights lack {', '.join(lacking[:3])}; they are of another model")
    return _wrapped(folder, model.float().eval())


def _wrapped(folder: Folder, model: Any) -> torch.nn.Module:
    """Return a module whose arguments are tokens, and whose result is a tensor by name."""
    import torch

    class Sequences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def answer(self, **tokens: torch.Tensor) -> dict[str, torch.Tensor]:
            result = self.model(**tokens)
            if folder.classifies:
                return {"logits": result.logits}
            vectors = _pooled(result.last_hidden_state, tokens["attention_mask"], folder.pooling)
            return {"embedding": torch.nn.functional.normalize(vectors, dim=1) if folder.normalized else vectors}

    class Texts(Sequences):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.answer(input_ids=input_ids, attention_mask=attention_mask)

    class Pairs(Sequences):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            return self.answer(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)

    return Pairs() if len(folder.input_names) > 2 else Texts()


def _pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Return one vector [batch, hidden] of the states [batch, sequence, hidden] of the tokens that the mask leaves."""
    if how == "cls":
        return states[:, 0]
    kept = mask.to(states.dtype)[..., None]
    if how == "max":
        return (states + (kept - 1) * 1e9).amax(1)
    return (states * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
