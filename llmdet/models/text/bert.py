"""BERT as the text encoder of Grounding DINO, on transformers 5."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llmdet.errors import ConfigError
from llmdet.models.structures import TextFeatures
from llmdet.models.text.cache import PromptCache, parameters_version
from llmdet.models.text.pretrained import load_bert
from llmdet.models.text.sub_sentence import full_attention, sub_sentence_attention
from llmdet.models.text.variants import average_variants
from llmdet.prompts.tokenizers import MAX_TOKENS, TEXT_ENCODER, load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer, check_length
from llmdet.prompts.types import TokenizedPrompt
from llmdet.registry import MODELS

#: The token ids of one prompt.
Row = Sequence[int] | np.ndarray
#: Cache key of the embedding that padded positions have.
PADDING = None
SPECIAL_TOKENS = ("[CLS]", "[SEP]", ".", "?")


@MODELS.register_module()
class BertModel(nn.Module):
    """Encoder with its tokenizer: prompts in, one embedding per token out.

    Without gradients and in eval mode every prompt is encoded once and remembered until the
    weights change; a batch re-uses single prompts of earlier batches.

    Args:
        name: folder of a transformers BERT, or its id on the Hugging Face hub. A folder without
            weights builds random ones (a checkpoint is expected to fill them) and says so.
        max_tokens: longest prompt, [CLS] and [SEP] included.
        pad_to_max: pad every batch to ``max_tokens`` instead of to its longest prompt.
        use_sub_sentence_represent: tokens between two special tokens see only each other
            (:mod:`llmdet.models.text.sub_sentence`); False: plain BERT over the whole prompt.
        special_tokens_list: the tokens that end a sub-sentence.
        add_pooling_layer: keep BERT's pooler. The detector never reads it; for weights that
            have one.
        num_layers_of_embedded: the embedding is the mean of this many last layers. (mmdet divides
            that mean by the number once more; at 1, which all published models use, it is equal.)
        use_checkpoint: recompute activations in the backward pass instead of keeping them.
        pretrained: read the weights; False where a checkpoint is going to fill all of them.

    Raises:
        ConfigError: the model cannot be found, or a setting does not fit it.
    """

    def __init__(
        self,
        name: str = TEXT_ENCODER,
        max_tokens: int = MAX_TOKENS,
        pad_to_max: bool = True,
        use_sub_sentence_represent: bool = False,
        special_tokens_list: Sequence[str] | None = None,
        add_pooling_layer: bool = False,
        num_layers_of_embedded: int = 1,
        use_checkpoint: bool = False,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if use_sub_sentence_represent and not special_tokens_list:
            raise ConfigError(
                "language_model: use_sub_sentence_represent=True needs special_tokens_list, the "
                f"tokens that end a sub-sentence, e.g. {list(SPECIAL_TOKENS)}."
            )
        self.pad_to_max = pad_to_max
        #: Batches are padded to multiples of so many tokens, which changes no number.
        self.length_multiple = 1
        self.use_sub_sentence_represent = use_sub_sentence_represent
        #: Writes and tokenises prompts for this encoder; knows the limit.
        self.prompts = PromptTokenizer(load_tokenizer(name), max_tokens)
        body = BertEncoder(
            name, add_pooling_layer, num_layers_of_embedded, use_checkpoint, pretrained
        )
        self.language_backbone = nn.ModuleDict({"body": body})
        self.language_dim = body.language_dim
        if max_tokens > body.max_positions:
            raise ConfigError(
                f"language_model: max_tokens={max_tokens} is more than the {body.max_positions} "
                f"positions of {name!r}; set max_tokens to that or less."
            )

        special_ids = self.tokenizer.convert_tokens_to_ids(list(special_tokens_list or ()))
        self.register_buffer(
            "special_ids", torch.tensor(special_ids, dtype=torch.long), persistent=False
        )
        self.special_ids: Tensor
        self._cache = PromptCache()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.prompts.tokenizer

    @property
    def max_tokens(self) -> int:
        """Longest prompt, [CLS] and [SEP] included."""
        return self.prompts.max_tokens

    def padded_length(self, longest: int) -> int:
        """L of a batch whose longest prompt has so many tokens."""
        if self.pad_to_max:
            return self.max_tokens
        return min(-(-longest // self.length_multiple) * self.length_multiple, self.max_tokens)

    def forward(self, prompts: Sequence[TokenizedPrompt | str]) -> TextFeatures:
        """Encode prompts.

        Args:
            prompts: B prompts as :class:`PromptTokenizer` makes them, in a worker or in
                :attr:`prompts`; bare texts are tokenised here.

        Returns:
            Their features; ``embedded`` is [B, L, ``language_dim``], L from :meth:`padded_length`.

        Raises:
            DataError: a prompt has more than ``max_tokens`` tokens.
        """
        rows = [self._ids(prompt) for prompt in prompts]
        input_ids, token_mask = self._collate(rows)
        attention_mask, position_ids = self._attention(input_ids, token_mask)
        if self.training or torch.is_grad_enabled():
            embedded = self._embed(input_ids, token_mask, attention_mask, position_ids)
        else:
            texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
            embedded = self._recall(texts, rows, token_mask)
        embedded = self._with_variants(prompts, embedded)
        return TextFeatures(embedded, token_mask, position_ids, attention_mask)

    def train(self, mode: bool = True) -> BertModel:
        self._cache.clear()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> BertModel:
        self._cache.clear()
        return super()._apply(fn, recurse)

    def _ids(self, prompt: TokenizedPrompt | str) -> Row:
        if isinstance(prompt, str):
            ids = self.tokenizer(prompt, verbose=False)["input_ids"]
            check_length(prompt, len(ids), self.max_tokens)
            return ids
        check_length(prompt.text, len(prompt.ids), self.max_tokens)
        return prompt.ids

    def _collate(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Token ids and token mask, both [B, L], on the encoder's device."""
        length = self.padded_length(max(map(len, rows)))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row)
            mask[i, : len(row)] = True
        device = self.special_ids.device
        return ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)

    def _attention(self, input_ids: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.use_sub_sentence_represent:
            return sub_sentence_attention(input_ids, token_mask, self.special_ids)
        return full_attention(token_mask)

    def _embed(
        self, input_ids: Tensor, token_mask: Tensor, attention_mask: Tensor, position_ids: Tensor
    ) -> Tensor:
        """Run BERT: [B, L, language_dim]."""
        embedded = self.language_backbone["body"](input_ids, attention_mask, position_ids)
        if self.use_sub_sentence_represent:
            return embedded
        return embedded * token_mask[..., None]

    def _recall(self, texts: Sequence[str], rows: Sequence[Row], token_mask: Tensor) -> Tensor:
        """As :meth:`_embed`, running BERT only for prompts that it has not seen."""
        self._cache.claim(self._state())
        wanted: dict[Hashable, Row] = dict(zip(texts, rows, strict=True))
        if self.use_sub_sentence_represent:
            # A padded position sees only itself at position 0: it is the one-token prompt [PAD].
            wanted[PADDING] = [self.tokenizer.pad_token_id]
        found = {key: self._cache.get(key) for key in wanted}
        known = {key: entry for key, entry in found.items() if entry is not None}
        missing = [key for key in wanted if key not in known]
        if missing:
            known.update(zip(missing, self._encode([wanted[k] for k in missing]), strict=True))
        for key in missing:
            self._cache.put(key, known[key])

        entries = [known[text] for text in texts]
        padded = entries[0].new_zeros(*token_mask.shape, self.language_dim)  # [B, L, C]
        if self.use_sub_sentence_represent:
            padded = padded + known[PADDING]
        for i, entry in enumerate(entries):
            padded[i, : len(entry)] = entry
        return padded

    def _with_variants(self, prompts: Sequence[TokenizedPrompt | str], embedded: Tensor) -> Tensor:
        """Average the ways in which the classes of a prompt are said, where there are several."""
        if not any(isinstance(p, TokenizedPrompt) and p.variants for p in prompts):
            return embedded
        learning = self.training or torch.is_grad_enabled()
        rows = list(embedded)
        for row, prompt in enumerate(prompts):
            if isinstance(prompt, str) or not prompt.variants:
                continue
            length = len(prompt.ids)
            averaged = None if learning else self._cache.get(prompt)
            if averaged is None:
                ways = self(prompt.variants).embedded  # all in one pass
                averaged = average_variants(rows[row][:length], prompt, ways)
                if not learning:
                    self._cache.put(prompt, averaged)
            rows[row] = torch.cat([averaged, rows[row][length:]])
        return torch.stack(rows)

    def _encode(self, rows: Sequence[Row]) -> list[Tensor]:
        """Embeddings of each row without its padding, [L_i, language_dim] each."""
        input_ids, token_mask = self._collate(rows)
        embedded = self._embed(input_ids, token_mask, *self._attention(input_ids, token_mask))
        return [embedded[i, : len(row)].clone() for i, row in enumerate(rows)]

    def _state(self) -> Hashable:
        """What the embeddings depend on besides the prompts."""
        device_type = self.special_ids.device.type
        autocast = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
        return autocast, parameters_version(self.language_backbone.parameters())


class BertEncoder(nn.Module):
    """transformers' BERT behind mmdet's parameter names (``body.model.*``).

    Args: see :class:`BertModel`.
    """

    def __init__(
        self,
        name: str,
        add_pooling_layer: bool = False,
        num_layers_of_embedded: int = 1,
        use_checkpoint: bool = False,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.model = load_bert(name, add_pooling_layer, pretrained)
        config = self.model.config
        if not 1 <= num_layers_of_embedded <= config.num_hidden_layers:
            raise ConfigError(
                f"language_model: num_layers_of_embedded={num_layers_of_embedded}, but {name!r} "
                f"has {config.num_hidden_layers} layers; choose 1 to {config.num_hidden_layers}."
            )
        self.language_dim: int = config.hidden_size
        self.max_positions: int = config.max_position_embeddings
        self.num_layers_of_embedded = num_layers_of_embedded
        if use_checkpoint:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.register_load_state_dict_pre_hook(_drop_position_ids)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Hidden states of the last layer, or the mean of the last few.

        Args:
            input_ids: [B, L] int64.
            attention_mask: [B, L, L] bool, True where row attends to column.
            position_ids: [B, L] int64.

        Returns:
            [B, L, language_dim].
        """
        several = self.num_layers_of_embedded > 1
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask[:, None],
            position_ids=position_ids,
            output_hidden_states=several,
        )
        if not several:
            return output.last_hidden_state
        return torch.stack(output.hidden_states[-self.num_layers_of_embedded :]).mean(dim=0)


def _drop_position_ids(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Checkpoints written before transformers 4.31 carry a constant 0, 1, 2, ... buffer."""
    state_dict.pop(f"{prefix}model.embeddings.position_ids", None)
