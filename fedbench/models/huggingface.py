"""Hugging Face's models from a local folder or cache, as networks that return logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedbench.components.model_folder import config_values, find_model_folder, has_weights, tokenizer_digest
from fedbench.components.optional_library import optional_library
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError, ModelError
from fedbench.models.adapter_keys import Peft
from fedbench.models.adapters import adapt
from fedbench.models.base import LayerGroup, Model, Task
from fedbench.models.blocks import Blocks, block_groups, find_blocks
from fedbench.models.requirements import IN_WORDS

POOLER = "pooler"
"""The module behind the blocks of BERT that is often not among the weights, and belongs to the head then."""


class HuggingFaceModel(Model):
    """A model of Hugging Face's transformers: "hf:PATH" of a local folder, or "hf:OWNER/NAME" of the local cache.

    The folder's `config.json` says what network it is, and its weights are safetensors. The data decide the head:
    texts are classified, or continued by their next token, images are classified.

    Attributes:
        weights: pretrained, or random with the network of config.json alone. null: pretrained where the folder has
            weights.
        download: Whether a model that is in no local cache may be fetched from the Hugging Face hub.
        config: Values in place of those of config.json, for random weights; such as {num_hidden_layers: 2}.
        peft: Adapters that train in place of the whole network: {lora: {r: 8, targets: [query, value]}}.
    """

    weights: Literal["random", "pretrained"] | None = None
    download: bool = False
    config: dict[str, Any] = Field(default_factory=dict)
    peft: Peft | None = None

    @model_validator(mode="after")
    def check_folder(self) -> "HuggingFaceModel":
        """The folder is there, and holds what is asked of it."""
        folder = self.folder()
        config_values(folder, self.name)
        if self.weights == "pretrained" and not has_weights(folder):
            raise ConfigError(
                f"model.weights=pretrained: {folder} has no weights in safetensors; put model.safetensors there, or "
                "set model.weights=random"
            )
        if self.config and self.pretrained(folder):
            raise ConfigError(
                "model.config: has no effect on pretrained weights, whose network is that of config.json; leave it "
                "out, or set model.weights=random"
            )
        return self

    def folder(self) -> Path:
        """The folder of the model.

        Raises:
            ConfigError: there is none.
        """
        return find_model_folder(self.name, "model.name", download=self.download)

    def pretrained(self, folder: Path) -> bool:
        """Whether the weights of the folder are loaded."""
        return self.weights != "random" and has_weights(folder)

    def build(self, task: Task) -> nn.Module:
        folder = self.folder()
        with optional_library("huggingface", f"model.name={self.name}"), quiet_transformers():
            network, drawn = self._network(folder, task)
        blocks = find_blocks(network, getattr(network.config, "num_hidden_layers", None))
        if self.peft is not None:
            adapt(self.name, network, self.peft, [*head_of(network), *drawn], usual_targets(network))
        return HuggingFaceNetwork(network, task) if blocks is None else BlockNetwork(network, task, blocks)

    def _network(self, folder: Path, task: Task) -> tuple[Any, list[str]]:
        """The model with the head of the task, and the modules inside its base that are not among its weights."""
        import transformers

        auto = getattr(transformers, auto_class(self.name, task))
        pretrained = self.pretrained(folder)
        config = self._configuration(folder, task)
        if type(config) not in auto._model_mapping:
            raise ModelError(f"model.name={self.name}: transformers has no {auto.__name__} of {config.model_type}")
        try:
            if not pretrained:
                return auto.from_config(config), []
            settings = {"local_files_only": True, "use_safetensors": True, "dtype": "float32"}
            settings["ignore_mismatched_sizes"] = True  # told apart below, in one line
            network, report = auto.from_pretrained(folder, config=config, output_loading_info=True, **settings)
        except Exception as error:  # whatever a model or a damaged file raise
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ModelError(f"model.name={self.name}: cannot be built: {reason}") from error
        prefix = network.base_model_prefix
        # A classifier that was trained for other classes is drawn anew; nothing else may differ.
        if wrong := [entry for entry in report["mismatched_keys"] if entry[0].startswith(f"{prefix}.")]:
            tensor, saved, expected = sorted(wrong)[0]
            raise ModelError(
                f"model.name={self.name}: {len(wrong)} tensors have other shapes in its weights than in the network "
                f"({tensor}: {list(saved)}, expected {list(expected)}); config.json and model.safetensors do not "
                "belong together"
            )
        missing = [name for name in report["missing_keys"] if name.startswith(f"{prefix}.")]
        pooler = f"{prefix}.{POOLER}"
        if unknown := [name for name in missing if not name.startswith(f"{pooler}.")]:
            raise ModelError(
                f"model.name={self.name}: {len(unknown)} tensors of the network are not among its weights "
                f"({unknown[0]}); config.json and model.safetensors do not belong together"
            )
        return network, [pooler] if missing else []

    def _configuration(self, folder: Path, task: Task) -> Any:
        """The configuration of the folder, with the outputs and the padding of the task.

        Raises:
            ConfigError: `model.config` has a key that the model does not know.
            ModelError: the data do not fit the model.
        """
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ModelError(f"model.name={self.name}: config.json cannot be used: {reason}") from error
        known = config.to_dict()
        for key, value in self.config.items():
            if key not in known and not hasattr(config, key):
                raise ConfigError(f"model.config.{key}: unknown key of {config.model_type}{did_you_mean(key, known)}")
            setattr(config, key, value)
        tokenizer = tokenizer_digest(folder)
        check_data(self.name, config, task, owns_tokens=bool(tokenizer) and tokenizer == task.tokenizer)
        if self.pretrained(folder) and task.kind == "text" and tokenizer and tokenizer != task.tokenizer:
            raise ModelError(
                f"model.name={self.name}: its weights belong to its own tokenizer, and the token ids of the data are "
                f"others; set data.dataset.tokenizer={self.name}"
            )
        if task.kind == "text":
            config.pad_token_id = task.padding_index if task.padding_index >= 0 else None
        if is_next_token(task):
            _read_from_left_to_right(config)
        else:
            config.num_labels = task.classes
        config.use_cache = False
        return config


class HuggingFaceNetwork(nn.Module):
    """A model of transformers that takes a minibatch and returns its logits.

    Args:
        network: the model.
        task: what it is for; tokens with `task.padding_index` are masked.
    """

    has_frozen_base = True

    def __init__(self, network: Any, task: Task) -> None:
        super().__init__()
        self.network = network
        self._kind = task.kind
        self._padding = task.padding_index
        self._outputs = task.classes

    def forward(self, inputs: Tensor) -> Tensor:
        """int64 [N, L] token ids or float32 [N, C, H, W] images -> logits, float32 [N, classes] or [N, L, classes]."""
        if self._kind == "image":
            of_images: Tensor = self.network(pixel_values=inputs).logits
            return of_images
        mask = None if self._padding < 0 else (inputs != self._padding).long()
        if inputs.is_meta:
            # Only shapes are computed there, and transformers reads the values of a mask that is not yet [N, 1, L, L].
            mask = torch.zeros(len(inputs), 1, inputs.shape[1], inputs.shape[1], device=inputs.device)
        if mask is not None and inputs.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("transformers computes in another way where no token of a minibatch is padding")
        logits: Tensor = self.network(input_ids=inputs, attention_mask=mask).logits
        # A vocabulary is often filled up to a round number: no text has the further tokens.
        return logits[..., : self._outputs]


class BlockNetwork(HuggingFaceNetwork):
    """A model of transformers whose layer groups are its repeated blocks, and what lies before and behind them.

    Args:
        network, task: as for `HuggingFaceNetwork`.
        blocks: the place of the blocks in the model.
    """

    def __init__(self, network: Any, task: Task, blocks: Blocks) -> None:
        super().__init__(network, task)
        self._blocks = blocks.below("network")

    def layer_groups(self) -> list[LayerGroup]:
        """See `fedbench.models.blocks.block_groups`."""
        return block_groups(self, self._blocks)


def is_next_token(task: Task) -> bool:
    """Whether a text is continued, token by token."""
    return task.target == "next_token"


def auto_class(name: str, task: Task) -> str:
    """The class of transformers that finds the network with the head of a task.

    Raises:
        ModelError: there is none.
    """
    target = task.target
    if task.kind == "text" and target == "next_token":
        return "AutoModelForCausalLM"
    if task.kind == "text" and target in ("classification", "multilabel", "regression"):
        return "AutoModelForSequenceClassification"
    if task.kind == "image" and target in ("classification", "multilabel", "regression"):
        return "AutoModelForImageClassification"
    kind = IN_WORDS[task.kind]
    raise ModelError(
        f"model.name={name}: models of transformers classify images and texts, predict numbers of them, and continue "
        f"texts; the data are {kind} with labels for {target.replace('_', ' ')}"
    )


def _read_from_left_to_right(config: Any) -> None:
    """Have an encoder, such as BERT, mask what follows each token, as its weights for the next token need it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        config.is_decoder = True


def check_data(name: str, config: Any, task: Task, *, owns_tokens: bool = False) -> None:
    """Check that inputs of the task fit into the model.

    Args:
        name: the model's name, for messages.
        config: its configuration, as transformers has it.
        task: what it is for.
        owns_tokens: whether the tokens of the data are those of the tokenizer in the model's folder.

    Raises:
        ModelError: they do not.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model.name={name}: {config.model_type} has an encoder and a decoder, which no task of fedbench needs; "
            "take a model of one of the two, such as BERT's or GPT-2's"
        )
    if task.kind == "text":
        vocabulary, most = getattr(config, "vocab_size", None), getattr(config, "max_position_embeddings", None)
        if vocabulary is not None and vocabulary < task.vocabulary_size:
            more = f"data.dataset.tokenizer={name}, or with random weights model.config.vocab_size"
            whose = "its tokenizer has" if owns_tokens else "the data have"
            if owns_tokens:
                more = f"with random weights model.config.vocab_size={task.vocabulary_size}, or get the folder again"
            raise ModelError(
                f"model.name={name}: knows {vocabulary:,} tokens, {whose} {task.vocabulary_size:,}; set {more}"
            )
        if most is not None and most < task.input_shape[0]:
            raise ModelError(
                f"model.name={name}: takes texts of up to {most} tokens, those of the data have {task.input_shape[0]}; "
                "lower max_tokens of the data"
            )
        return
    height, width, channels = task.input_shape
    if (known := getattr(config, "num_channels", channels)) != channels:
        raise ModelError(f"model.name={name}: takes images with {known} channels, those of the data have {channels}")
    size = getattr(config, "image_size", None)
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if size is not None and sides != (height, width):
        raise ModelError(
            f"model.name={name}: takes images of {sides[0]}x{sides[1]}, those of the data have {height}x{width}; with "
            "random weights set model.config.image_size"
        )


def head_of(network: Any) -> list[str]:
    """The modules with parameters that stand beside the base of a model, such as its classifier.

    There are none where the output layer shares the weights of the embedding.
    """
    in_base = {id(parameter) for parameter in network.base_model.parameters()}
    is_generator = network.get_output_embeddings() is not None
    return [
        name
        for name, child in network.named_children()
        if child is not network.base_model
        and not is_generator
        and any(id(parameter) not in in_base for parameter in child.parameters())
    ]


def usual_targets(network: Any) -> list[str] | None:
    """The layers that peft adapts in models of this type where nobody names any; None: it knows none."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_TYPE

    targets = BY_TYPE.get(network.config.model_type)
    return None if targets is None else list(targets)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context in which transformers neither reports on what it loads nor shows bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
