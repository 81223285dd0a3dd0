"""Region language models: towers, regions as tokens, a language model and an output.

RegionGPT, ChatRex, RexSeek and GLaMM differ in which of these parts a config names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.views import ViewSettings
from llmdet.errors import ConfigError
from llmdet.models.accumulation import StepTotals, share_of_step
from llmdet.models.language.dialogue import DialogueBatch, collate_dialogue
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.language.losses import zero_loss
from llmdet.models.outputs.base import Output, Scene
from llmdet.models.regions.slots import SlotFiller, named_slots
from llmdet.models.vision.views import TowerOutput, View
from llmdet.prompts.conversation import (
    Conversation,
    ConversationSettings,
    TokenizedConversation,
    ask,
)
from llmdet.prompts.conversation_tokens import ConversationTokenizer, count_learned
from llmdet.registry import MODELS
from llmdet.utils.construct import construct

Config = Mapping[str, Any]
#: What the learned tokens of a step are counted under.
_LEARNED = "conversation"


@dataclass(frozen=True)
class TalkSettings:
    """How a model is spoken to.

    Attributes:
        max_length: most tokens of a conversation, those of images and regions included.
        max_new_tokens: most tokens of an answer, where its caller does not say.
        system: system turn of each conversation, None for none.
        template: name of a chat template, see ``llmdet.prompts.conversation_tokens``, or its
            text; None for the tokenizer's own.
        answers_only: learn answers and their end, not what the template has around them.
        around: kind of mark -> (text before, text behind), written wherever the mark stands.
        legacy_blanks: leave out blanks beside added tokens, and put one in front of each piece of
            text between them, as the tokenizers did that GLaMM was trained with.
    """

    max_length: int = 2048
    max_new_tokens: int = 128
    system: str | None = "You are a helpful assistant."
    template: str | None = None
    answers_only: bool = True
    around: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    legacy_blanks: bool = False


@MODELS.register_module()
class RegionLMM(BaseModel):
    """Conversations about images and regions, learned and answered.

    Args:
        towers: what sees, by name; each makes its view of an image.
        slots: kind of mark ("image", "region") -> settings of
            :class:`~llmdet.models.regions.slots.SlotSettings`.
        lmm: the language model, see :class:`LanguageModel`.
        output: what an answer becomes.
        talk: settings of :class:`TalkSettings`.
        data_preprocessor: mmengine's; by default :class:`ViewPreprocessor`.
        init_cfg: mmengine's.

    Raises:
        ConfigError: a slot names a tower or a connector that is not there.
    """

    def __init__(
        self,
        *,
        towers: Mapping[str, Config],
        slots: Mapping[str, Config],
        lmm: Config,
        output: Config | None = None,
        talk: Config | None = None,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        preprocessor = data_preprocessor or {"type": "ViewPreprocessor"}
        super().__init__(MODELS.build(preprocessor), init_cfg)
        self.talk = construct(TalkSettings, talk or {}, "model.talk")
        self.towers = nn.ModuleDict({name: MODELS.build(tower) for name, tower in towers.items()})
        self.output: Output = MODELS.build(output or {"type": "Text"})
        added = (*lmm.get("added_tokens", ()), *self.output.added_tokens)
        self.lmm: LanguageModel = MODELS.build({**lmm, "added_tokens": added})
        settings = named_slots(slots, self.towers)
        self.filler = SlotFiller(settings, self.towers, self.lmm.hidden_size)
        self.output.connect(self.lmm.hidden_size, tuple(self.towers))
        self.conversations = ConversationTokenizer(
            self.lmm.tokenizer,
            ConversationSettings(
                tokenizer=self.lmm.tokenizer_name,
                slots=self.filler.lengths,
                max_length=self.talk.max_length,
                system=self.talk.system,
                added_tokens=self.lmm.added_tokens,
                write=self.output.write,
                any_kinds=True,
                template=self.talk.template,
                answers_only=self.talk.answers_only,
                around=tuple((kind, *texts) for kind, texts in self.talk.around.items()),
                legacy_blanks=self.talk.legacy_blanks,
            ),
        )

    def forward(
        self, inputs: Mapping[str, View], data_samples: Sequence[DetDataSample], mode: str = "loss"
    ) -> Any:
        """What mmengine's loops call: the losses, or samples with answers.

        Raises:
            ConfigError: another mode is asked for.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        raise ConfigError(f"RegionLMM has no mode {mode!r}; 'loss' and 'predict' are")

    def loss(
        self, inputs: Mapping[str, View], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """What it costs to say the learned turns: the mean over tokens of the whole batch.

        What the output adds is named by it.

        Args:
            inputs: the view of each tower.
            data_samples: B samples with conversations and their regions (:func:`grounding_of`).
        """
        return self.loss_of(self.look(inputs), data_samples)

    def loss_of(
        self, seen: Mapping[str, TowerOutput], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """As :meth:`loss`, of images that the towers have read: frozen ones need do it but once."""
        of_samples = [self._tokenized(sample) for sample in data_samples]
        flat = list(chain.from_iterable(of_samples))
        device = self.lmm.device
        shares = {
            kind: share_of_step(number, kind, device) for kind, number in self._counts(flat).items()
        }
        if not flat and not self.lmm.in_every_step:
            return dict.fromkeys(
                ("loss_lmm", *self.output.loss_names), zero_loss(self.parameters())
            )
        tokens = flat or [self.conversations(ask(".", "."))]
        dialogue = collate_dialogue(tokens, self.lmm.pad_id, device)
        features = self._features(seen, data_samples, of_samples, dialogue)
        hidden = self.lmm.states(dialogue, features)
        loss = shares[_LEARNED] * self.lmm.loss_of(hidden, dialogue)
        if len(features) < len(self.filler.settings):  # what nothing was read of has no gradient
            loss = loss + zero_loss([*self.towers.parameters(), *self.filler.parameters()])
        scene = _scene(seen, data_samples, of_samples)
        said = self.output.losses(hidden, dialogue, scene, self.lmm.tokenizer, shares)
        return {"loss_lmm": loss, **said}

    def predict(
        self, inputs: Mapping[str, View], data_samples: Sequence[DetDataSample], **generation: Any
    ) -> Sequence[DetDataSample]:
        """Answer the last question of each conversation.

        Args:
            inputs, data_samples: as in :meth:`loss`; what was to be learned last is not shown,
                unless the samples say ``answers_given``: see :meth:`read_given`.
            generation: options of transformers' ``generate``; greedy by default.

        Returns:
            The samples with what metrics and prediction files read, as the output writes it.

        Raises:
            ConfigError: regions are to be found that answers cannot tell apart.
        """
        for sample in data_samples:
            self._check_sought(sample)
        with torch.no_grad():
            seen = self.look(inputs)
        held = [grounding_of(sample).conversations for sample in data_samples]
        given = [bool(sample.get("answers_given")) for sample in data_samples]
        shown = [each if known else () for each, known in zip(held, given, strict=True)]
        asked = [
            [] if known else [without_answer(one) for one in each]
            for each, known in zip(held, given, strict=True)
        ]
        answers = self.answer(seen, data_samples, asked, **generation)
        if any(given):
            read = self.read_given(seen, data_samples, shown)
            answers = [said or others for said, others in zip(read, answers, strict=True)]
        for sample, said in zip(data_samples, answers, strict=True):
            self.output.write_prediction(sample, said)
        return data_samples

    @torch.no_grad()
    def read_given(
        self,
        seen: Mapping[str, TowerOutput],
        data_samples: Sequence[DetDataSample],
        conversations: Sequence[Sequence[Conversation]],
    ) -> list[list[Any]]:
        """What the output reads off the answers that conversations end with (teacher forcing).

        Arguments and result as in :meth:`answer`.
        """
        of_samples = [[self.conversations.tokens_of(one) for one in each] for each in conversations]
        tokens = list(chain.from_iterable(of_samples))
        dialogue = collate_dialogue(tokens, self.lmm.pad_id, self.lmm.device)
        features = self._features(seen, data_samples, of_samples, dialogue)
        hidden = self.lmm.states(dialogue, features)
        scene = Scene(
            seen,
            data_samples,
            image=[number for number, each in enumerate(conversations) for _ in each],
            conversations=list(chain.from_iterable(conversations)),
            tokens=tokens,
        )
        said = iter(self.output.read_given(hidden, dialogue, scene, self.lmm.tokenizer))
        return [[next(said) for _ in each] for each in conversations]

    @torch.no_grad()
    def answer(
        self,
        seen: Mapping[str, TowerOutput],
        data_samples: Sequence[DetDataSample],
        conversations: Sequence[Sequence[Conversation]],
        *,
        batch_size: int = 64,
        **generation: Any,
    ) -> list[list[Any]]:
        """What the model says next in conversations that end with a question.

        Args:
            seen: of :meth:`look`, of B images.
            data_samples: B samples with the regions that are spoken of.
            conversations: any number for each image.
            batch_size: most conversations that are answered at once.
            generation: options of transformers' ``generate``; greedy by default.

        Returns:
            For each image, one answer for each of its conversations.
        """
        options = {"do_sample": False, "max_new_tokens": self.talk.max_new_tokens, **generation}
        flat = [
            (image, self.conversations(each))
            for image, batch in enumerate(conversations)
            for each in batch
        ]
        answers: list[list[Any]] = [[] for _ in conversations]
        for start in range(0, len(flat), batch_size):
            part = flat[start : start + batch_size]
            of_samples: list[list[TokenizedConversation]] = [[] for _ in conversations]
            for image, tokens in part:
                of_samples[image].append(tokens)
            dialogue = self._collate([tokens for _, tokens in part])
            features = self._features(seen, data_samples, of_samples, dialogue)
            limits = self.output.constraints(self.lmm, dialogue, options)
            generated = self.lmm.generate(dialogue, features, **{**options, **limits})
            scene = Scene(seen, data_samples, [image for image, _ in part])
            said = self.output.read(generated, self.lmm.tokenizer, scene)
            for (image, _), text in zip(part, said, strict=True):
                answers[image].append(text)
        return answers

    def answer_views(
        self,
        inputs: Mapping[str, View],
        data_samples: Sequence[DetDataSample],
        conversations: Sequence[Sequence[Conversation]],
        **options: Any,
    ) -> list[list[Any]]:
        """As :meth:`answer`, of images that no tower has read yet."""
        with torch.no_grad():
            seen = self.look(inputs)
        return self.answer(seen, data_samples, conversations, **options)

    def look(self, inputs: Mapping[str, View]) -> dict[str, TowerOutput]:
        """What every tower makes of its view; one look serves any number of questions.

        Raises:
            ConfigError: a tower has no view.
        """
        missing = set(self.towers) - set(inputs)
        if missing:
            raise ConfigError(
                f"the inputs have no view for {', '.join(sorted(missing))}: put MakeViews and "
                "PackViews at the end of the pipeline"
            )
        return {name: tower(inputs[name]) for name, tower in self.towers.items()}

    def conversation_settings(self) -> tuple[ConversationSettings, ...]:
        """How the conversations of training samples become tokens."""
        return (self.conversations.settings,)

    def view_settings(self) -> dict[str, ViewSettings]:
        """What each tower wants to see."""
        towers: Mapping[str, Any] = dict(self.towers)
        return {name: tower.view for name, tower in towers.items()}

    def count_step(self, batches: Sequence[Sequence[DetDataSample]]) -> StepTotals:
        """What the micro-batches of one step hold together; samples as in :meth:`loss`."""
        tokens = [self._tokenized(sample) for batch in batches for sample in batch]
        return StepTotals(len(batches), 0, 0, 0, self._counts(list(chain.from_iterable(tokens))))

    def _features(
        self,
        seen: Mapping[str, TowerOutput],
        samples: Sequence[DetDataSample],
        tokens: Sequence[Sequence[TokenizedConversation]],
        dialogue: DialogueBatch,
    ) -> Mapping[str, Tensor]:
        """What fills the slots of conversations, by kind."""
        features = self.filler(seen, samples, tokens)
        return self.output.mark_features(features, dialogue, self.lmm)

    def _counts(self, tokens: Sequence[TokenizedConversation]) -> dict[str, int]:
        """What losses are divided by, in these conversations."""
        learned = sum(map(count_learned, tokens))
        return {_LEARNED: learned, **self.output.counts(tokens, self.lmm.tokenizer)}

    def _tokenized(self, sample: DetDataSample) -> list[TokenizedConversation]:
        return [self.conversations.tokens_of(each) for each in grounding_of(sample).conversations]

    def _check_sought(self, sample: DetDataSample) -> None:
        """Refuse a sample that asks to find more regions than answers can name."""
        grounding = grounding_of(sample)
        most = self.output.most_found
        if grounding.sought and len(grounding.regions) > most:
            remedy = f"set max_candidates={most} of the data set" if most else "use ObjectIndex"
            raise ConfigError(
                f"sample {sample.get('img_id')} has {len(grounding.regions)} candidates, and "
                f"answers of {type(self.output).__name__} can name {most or 'none'}: {remedy}"
            )

    def _collate(self, tokens: Sequence[TokenizedConversation]) -> DialogueBatch:
        return collate_dialogue(tokens, self.lmm.pad_id, self.lmm.device, left=True)


def _scene(
    seen: Mapping[str, TowerOutput],
    samples: Sequence[DetDataSample],
    tokens: Sequence[Sequence[TokenizedConversation]],
) -> Scene:
    """What the conversations that samples learn are about."""
    conversations = [grounding_of(sample).conversations for sample in samples]
    return Scene(
        seen,
        samples,
        image=[number for number, each in enumerate(conversations) for _ in each],
        conversations=list(chain.from_iterable(conversations)),
        tokens=list(chain.from_iterable(tokens)),
    )


def without_answer(conversation: Conversation) -> Conversation:
    """The conversation up to its last question, where it ends with the answer to it."""
    if conversation.turns[-1].role != "assistant":
        return conversation
    return replace(conversation, turns=conversation.turns[:-1], tokens=None)
