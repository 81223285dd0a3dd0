"""Answers whose words have masks (GLaMM, arXiv 2311.03356, 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from llmdet.datasets.masks import encode_mask
from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError, DataError
from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated
from llmdet.models.language.losses import zero_loss
from llmdet.models.outputs.mask_decoder import MaskDecoder, original_logits
from llmdet.models.outputs.mask_losses import mask_cross_entropy, mask_dice
from llmdet.models.regions.slots import region_mask
from llmdet.prompts.conversation import Conversation, TokenizedConversation, with_image
from llmdet.prompts.masks import MaskedText, MaskGrammar, marked_regions
from llmdet.registry import MODELS

from .base import Output, Scene

#: What the masks of a step are counted under.
_MASKS = "mask"


@dataclass(frozen=True)
class MaskAnswer:
    """What was said about an image, and the mask of each phrase."""

    said: MaskedText
    masks: tuple[Mapping[str, Any], ...]  # COCO's run-length encodings, one for each phrase
    #: The probability of the token that stands for each mask; none of an answer that was given.
    scores: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.said.text


@dataclass(frozen=True)
class _Wanted:
    """The masks that a batch of conversations is to learn, image after image."""

    places: list[int]  # into R * T, where the token of each is predicted from
    regions: list[tuple[int, int]]  # (image, region)


@MODELS.register_module()
class Mask(Output):
    """The state from which the token of a mask is said becomes a prompt of SAM's decoder.

    Args:
        tower: name of the model's tower that the decoder reads, a ``SamTower`` of the same SAM.
        decoder: of the registry, see :class:`MaskDecoder`.
        token, opened, closed: see :class:`MaskGrammar`.
        cross_entropy, dice: weights of the two losses of a mask, beside the language model's.
        introduction: what stands in front of questions that do not mark the image's place, with
            its mark.
    """

    def __init__(
        self,
        tower: str,
        decoder: Mapping[str, Any],
        token: str = "[SEG]",
        opened: str = "<p>",
        closed: str = "</p>",
        cross_entropy: float = 2.0,
        dice: float = 0.5,
        introduction: str = "<image>\n",
    ) -> None:
        super().__init__()
        self.tower = tower
        self.decoder: MaskDecoder = MODELS.build(decoder)
        self.grammar = MaskGrammar(token, opened, closed)
        self.added_tokens = self.grammar.tokens
        self.write = self.grammar
        self.introduction = introduction
        self.weights = {"loss_mask": cross_entropy, "loss_dice": dice}
        self.loss_names = tuple(self.weights)
        self.prompt_map = nn.Sequential()

    def introduce(self, conversation: Conversation, regions: int) -> Conversation:
        """The image is where the conversation marks it, or where the introduction does."""
        return with_image(conversation, self.introduction)

    def connect(self, hidden_size: int, towers: Sequence[str]) -> None:
        """Make the map from states of the language model to prompts.

        Raises:
            ConfigError: the model has no such tower.
        """
        if self.tower not in towers:
            raise ConfigError(
                f"model.output.tower={self.tower!r} is none of model.towers: {', '.join(towers)}"
            )
        self.prompt_map = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, self.decoder.dims),
        )

    def counts(self, tokens: Sequence[TokenizedConversation], tokenizer: Any) -> dict[str, int]:
        """Masks that are learned."""
        seg = self._token(tokenizer)
        return {_MASKS: sum(len(_learned(each, seg)) for each in tokens)}

    def losses(
        self,
        hidden: Tensor,
        dialogue: DialogueBatch,
        scene: Scene,
        tokenizer: Any,
        shares: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Cross-entropy and dice of all masks, means over those of the whole step.

        Raises:
            DataError: an answer has a mask of a region that its sample does not have.
        """
        wanted = self._wanted(dialogue, scene, self._token(tokenizer))
        if not wanted.places:
            return {name: zero_loss(self.parameters()) for name in self.weights}
        index = torch.tensor(wanted.places).to(hidden.device, non_blocking=True)
        prompts = self._prompts(hidden.flatten(0, 1)[index])
        totals = self._compare(prompts, wanted.regions, scene)
        share = shares[_MASKS] / len(wanted.places)
        return {name: share * self.weights[name] * total for name, total in totals.items()}

    def read(
        self, generated: Generated, tokenizer: Any, scene: Scene | None = None
    ) -> list[MaskAnswer]:
        """One answer for each conversation, with masks in pixels of the original image."""
        if scene is None:
            raise ConfigError("masks are read off an image; this output needs a RegionLMM")
        seg = self._token(tokenizer)
        rows = generated.ids.tolist()
        stop = tokenizer.eos_token_id
        ends = [ids.index(stop) if stop in ids else len(ids) for ids in rows]
        places = [
            (row, n)
            for row, (ids, end) in enumerate(zip(rows, ends, strict=True))
            for n in range(end)
            if ids[n] == seg
        ]
        images = [scene.image[row * len(scene.image) // len(rows)] for row, _ in places]
        masks = self._masks(_at(generated.hidden, places), images, scene)
        skipped = set(tokenizer.all_special_ids).difference(self._ids(tokenizer))
        probabilities = generated.probabilities.tolist()
        answers = []
        for row, (ids, end) in enumerate(zip(rows, ends, strict=True)):
            text = self._text([token for token in ids[:end] if token not in skipped], tokenizer)
            mine = [number for number, (of, _) in enumerate(places) if of == row]
            scores = tuple(probabilities[row][places[n][1]] for n in mine)
            said = self.grammar.parse(text.strip())
            answers.append(MaskAnswer(said, tuple(masks[n] for n in mine), scores))
        return answers

    def read_given(
        self, hidden: Tensor, dialogue: DialogueBatch, scene: Scene, tokenizer: Any
    ) -> list[MaskAnswer]:
        """The masks of the last answer of each conversation, its words being given.

        It is how the program of GLaMM evaluates referring expressions.
        """
        seg = self._token(tokenizer)
        answers, places, images = [], [], []
        for row, (tokens, conversation) in enumerate(
            zip(scene.tokens, scene.conversations, strict=True)
        ):
            text = self.grammar(conversation.turns[-1].text)
            said = self.grammar.parse(text)
            count = len(said.phrases)
            of_answer = _learned(tokens, seg)[-count:] if count else []
            places += [(row, position - 1) for position in of_answer]
            images += [scene.image[row]] * len(of_answer)
            answers.append((said, len(of_answer)))
        masks = iter(self._masks(_at(hidden, places), images, scene))
        return [
            MaskAnswer(said, tuple(next(masks) for _ in range(count))) for said, count in answers
        ]

    def write_prediction(self, sample: DetDataSample, answers: Sequence[MaskAnswer]) -> None:
        """Also ``pred_masks`` and the phrase of each as ``pred_phrases``, where one was asked.

        The text has GLaMM's tokens, whatever those of the model are, so that metrics can read it.
        """
        super().write_prediction(sample, answers)
        if len(answers) != 1:
            return
        (answer,) = answers
        text = answer.said.text
        for own, common in zip(self.grammar.tokens, MaskGrammar().tokens, strict=True):
            text = text.replace(own, common)
        sample.set_field(text, "pred_text")
        sample.set_field(list(answer.said.phrases), "pred_phrases")
        sample.set_field(list(answer.masks), "pred_masks")

    def _text(self, ids: Sequence[int], tokenizer: Any) -> str:
        """What tokens say; a mark that is spelled in letters stands for nothing and is left out."""
        text: str = tokenizer.decode(ids)
        if text.count(self.grammar.token) == ids.count(self._token(tokenizer)):
            return text
        marks = set(self._ids(tokenizer))
        runs = [(is_mark, list(run)) for is_mark, run in groupby(ids, key=marks.__contains__)]
        pieces = [(is_mark, tokenizer.decode(run)) for is_mark, run in runs]
        return "".join(
            piece if is_mark else self.grammar.pattern.sub("", piece) for is_mark, piece in pieces
        )

    def _masks(
        self, states: Tensor, images: Sequence[int], scene: Scene
    ) -> list[Mapping[str, Any]]:
        """Encoded masks of the tokens that n states [n, H] say, each about one of the images."""
        if not images:
            return []
        seen = scene.seen[self.tower]
        prompts = self._prompts(states)
        of = torch.tensor(images, device=prompts.device)
        logits = self.decoder(seen, prompts, of)
        found = [
            original_logits(each[None], seen.frame, image)[0] > 0
            for each, image in zip(logits, images, strict=True)
        ]
        return [encode_mask(mask.cpu().numpy()) for mask in found]

    def _compare(
        self, prompts: Tensor, regions: Sequence[tuple[int, int]], scene: Scene
    ) -> dict[str, Tensor]:
        """Sums of both losses over all masks."""
        seen = scene.seen[self.tower]
        images = [image for image, _ in regions]
        of = torch.tensor(images).to(prompts.device, non_blocking=True)
        logits = self.decoder(seen, prompts, of)
        sums = {name: prompts.new_zeros(()) for name in self.weights}
        for image in dict.fromkeys(images):
            mine = [n for n, each in enumerate(images) if each == image]
            targets = self._targets([regions[n][1] for n in mine], image, scene)
            made = original_logits(logits[mine], seen.frame, image)
            wanted = targets.to(made.device, non_blocking=True)
            sums["loss_mask"] = sums["loss_mask"] + mask_cross_entropy(made, wanted).sum()
            sums["loss_dice"] = sums["loss_dice"] + mask_dice(made, wanted).sum()
        return sums

    def _targets(self, indices: Sequence[int], image: int, scene: Scene) -> Tensor:
        regions = grounding_of(scene.samples[image]).regions
        if max(indices) >= len(regions):
            raise DataError(
                f"an answer about sample {image} of the batch has the mask of region "
                f"{max(indices)} (counted from 0), but the sample has {len(regions)}"
            )
        size = scene.seen[self.tower].frame.original_sizes[image]
        return torch.stack([region_mask(regions, index, size) for index in indices])

    def _wanted(self, dialogue: DialogueBatch, scene: Scene, seg: int) -> _Wanted:
        length = dialogue.input_ids.shape[1]
        places: list[int] = []
        regions: list[tuple[int, int]] = []
        for row, (tokens, conversation) in enumerate(
            zip(scene.tokens, scene.conversations, strict=True)
        ):
            learned = _learned(tokens, seg)
            marked = marked_regions(conversation.turns)
            if len(learned) > len(marked):
                raise DataError(
                    f"an answer has {len(learned)} masks but names {len(marked)} regions: write "
                    f"<mask> or <mask:3> in rows, not {self.grammar.token}"
                )
            # Those behind the end of a conversation that was cut are not learned.
            places += [row * length + position - 1 for position in learned]
            regions += [(scene.image[row], region) for region in marked[: len(learned)]]
        return _Wanted(places, regions)

    def _prompts(self, states: Tensor) -> Tensor:
        return self.prompt_map(states.float())

    def _token(self, tokenizer: Any) -> int:
        return tokenizer.convert_tokens_to_ids(self.grammar.token)

    def _ids(self, tokenizer: Any) -> list[int]:
        return tokenizer.convert_tokens_to_ids([*self.grammar.tokens, *self.kept_tokens])


def _learned(tokens: TokenizedConversation, seg: int) -> list[int]:
    """Positions of the tokens of masks that are learned."""
    return np.flatnonzero(tokens.labels == seg).tolist()


def _at(hidden: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """[n, H] states [R, T, H] at n places (row, position)."""
    index = torch.tensor(places, dtype=torch.int64, device=hidden.device).reshape(-1, 2)
    row, column = index.unbind(1)
    return hidden[row, column]
