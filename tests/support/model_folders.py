"""Small model folders as Hugging Face's save_pretrained writes them, made from a configuration, and a few texts."""

import json
from pathlib import Path

TEXTS = [
    "Stocks rise on Wall Street",
    "The team wins the final match",
    "A new chip for phones",
    "Leaders meet for talks",
]
"""A text for each class of AG News, in another order."""


def bert(folder: Path, vocabulary: int = 120, layers: int = 2) -> str:
    """A BERT of hidden size 32 without weights; the name that a configuration gives it."""

    from transformers import BertConfig

    BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    return f"hf:{folder}"


def gpt(folder: Path, vocabulary: int = 120) -> str:
    """A GPT-2 of hidden size 32 without weights; the name that a configuration gives it."""

    from transformers import GPT2Config

    GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1
    ).save_pretrained(folder)
    return f"hf:{folder}"


def pretrained_bert(folder: Path, vocabulary: int = 120) -> str:
    """`bert` with weights in safetensors, drawn anew for each call."""

    from transformers import BertConfig, BertForSequenceClassification

    bert(folder, vocabulary)
    BertForSequenceClassification(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    # As of a model that was pretrained for another task, the classifier is not among the weights.
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return f"hf:{folder}"


def add_tokenizer(folder: Path, texts: list[str] = TEXTS, size: int = 120) -> None:
    """A WordPiece tokenizer that was trained on texts, in the folder."""

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
