"""A tiny folder of Hugging Face: a configuration, a tokenizer of words, and random weights when they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = "the a cat dog sat ran on mat road and red blue small large"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT.split(" ")]
BERT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def write_folder(folder: Path, architecture: str = "BertModel", *, pooling: str = "", **config: Any) -> Path:
    """Write all of a folder but its weights: `model.safetensors` is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**BERT, "architectures": [architecture], **config}))
    (folder / "model.safetensors").write_bytes(b"")
    if pooling:
        kinds = [f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")]
        (folder / "modules.json").write_text(json.dumps([{"type": kind} for kind in kinds]))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    _write_tokenizer(folder / "tokenizer.json")
    return folder


def write_model(folder: Path, architecture: str = "BertModel", *, pooling: str = "", labels: int = 3) -> Path:
    """Write a folder with random weights; needs `transformers`."""
    import torch
    import transformers

    write_folder(folder, architecture, pooling=pooling, num_labels=labels)
    torch.manual_seed(0)
    config = transformers.BertConfig.from_pretrained(str(folder))
    getattr(transformers, architecture)(config).save_pretrained(str(folder))
    return folder


def _write_tokenizer(file: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(file))
