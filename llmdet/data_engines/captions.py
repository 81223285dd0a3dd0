"""Long captions, and phrases of regions, for any annotated data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from llmdet.chat import ChatModel, ask
from llmdet.data_engines.annotations import Annotations, close_ups, largest_instances, name_of
from llmdet.data_engines.caption_rules import (
    MIN_CAPTION_WORDS,
    accepted_caption,
    accepted_phrase,
)
from llmdet.data_engines.flow import Shard, Steps, identities
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.questions import (
    Question,
    accepted_replies,
    left_out,
)
from llmdet.data_engines.runs import WHOLE, Run, by_name, journal_of
from llmdet.datasets.formats.rows import label_map_path
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.formats.writing import (
    detection_row,
    grounding_row,
    label_map,
    name_the_classes,
)
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import read_picture
from llmdet.datasets.row_targets import UNIFORM_PROMPT
from llmdet.errors import naming
from llmdet.utils.whole_files import whole_file

#: Counted up whenever the same answers would give other rows.
VERSION = 2
#: Who is asked.
ROLE = "captioner"
CAPTION_PROMPT = (
    "Describe this image in detail in one paragraph of at least 100 words: the objects, their "
    "number, colour, material and state, where they are in relation to each other, and the "
    "background. State only what can be seen; do not guess at purposes, feelings or causes."
)
PHRASE_PROMPT = (
    "This is a part of a larger picture. Describe the {name} at its centre in a phrase of at most "
    "ten words, such as 'a red wooden chair with a torn seat'. Answer with the phrase alone."
)
_REGION_MARGIN = 0.2  # of the box's sides, shown around it


@dataclass(frozen=True)
class CaptionSettings:
    """What is asked, and which answers are taken.

    Attributes:
        caption_prompt: asked of every image; ``{names}`` stands for what is annotated in it.
        phrase_prompt: asked of every region; ``{name}`` stands for its class or words.
        regions: regions per image to be described, the largest first; 0 describes none. With
            regions, rows are in grounding form.
        attempts: how often a question is asked before the sample goes without an answer.
        min_words: the least number of words of a cleaned caption.
    """

    caption_prompt: str = CAPTION_PROMPT
    phrase_prompt: str = PHRASE_PROMPT
    regions: int = 0
    attempts: int = 3
    min_words: int = MIN_CAPTION_WORDS


def caption_dataset(
    annotations: Annotations,
    out: Path,
    chat: ChatModel,
    settings: CaptionSettings,
    ledger: Ledger,
    run: Run = WHOLE,
) -> int:
    """Write the samples of annotations as JSONL rows with captions.

    Finished rows are kept in ``OUT.partial``; a second call with the same annotations, model and
    settings goes on from there. A sample whose caption is not accepted after all attempts is
    written without one, and counted.

    Args:
        annotations: what to caption.
        out: the JSONL file to write.
        chat: the model.
        settings: what to ask.
        ledger: counts rejected answers and broken pictures.
        run: how samples go through, and which.

    Returns:
        The number of rows.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a picture is broken and ``ledger`` permits no more of them.
    """
    source = annotations.open(ledger)
    journal = journal_of(out, decided_by(annotations, chat, settings, run.shard))
    as_labels = source.categories is not None and not settings.regions
    program = CaptionProgram(annotations.images, settings, as_labels)
    run.take(source.samples, source.total, program, {ROLE: chat}, journal, ledger)
    if source.categories is not None:  # before the rows, whose file says that all is there
        with whole_file(label_map_path(out)) as file:
            file.write(label_map(source.categories, out))
    return journal.finish(out, ledger)


def decided_by(
    annotations: Annotations, chat: ChatModel, settings: CaptionSettings, shard: Shard
) -> dict[str, object]:
    """All on which the rows depend, under names that a sentence can show."""
    return {
        "caption engine": VERSION,
        **annotations.identity,
        "shard": str(shard),
        **identities({ROLE: chat}),
        **by_name(settings),
    }


@dataclass(frozen=True)
class CaptionProgram:
    """Turns a sample into a row with captions.

    Attributes:
        images: the folder of the pictures.
        settings: what to ask.
        as_labels: rows are in detection form, else in grounding form.
    """

    images: Path
    settings: CaptionSettings
    as_labels: bool

    def __call__(self, sample: Sample) -> Steps:
        """Ask about the picture and its regions at the same time."""
        with naming(sample.where):
            image = read_picture(self.images / sample.filename)
        learnt = [instance for instance in sample.instances if not instance.ignored]
        described = self._described(learnt, image)
        questions = [self._about_picture(learnt, image)]
        questions += [self._about_region(instance, part) for instance, part in described]
        replies = yield from accepted_replies(questions, self.settings.attempts)
        caption, *phrases = (reply.value for reply in replies)
        if caption is not None:
            sample.fields["conversations"] = [
                {"from": "human", "value": UNIFORM_PROMPT},
                {"from": "gpt", "value": caption},
            ]
        if self.settings.regions and learnt and sample.caption is None:
            sample.caption = name_the_classes(learnt)
        for (instance, _), phrase in zip(described, phrases, strict=True):
            instance.phrase = instance.phrase if phrase is None else phrase
        row, _ = (detection_row if self.as_labels else grounding_row)(sample, learnt)
        return Outcome(row, notes=left_out(replies, sample.where))

    def _described(
        self, instances: list[Instance], image: Image.Image
    ) -> list[tuple[Instance, Image.Image]]:
        """The largest regions with what they show."""
        largest = largest_instances(instances, self.settings.regions)
        return close_ups(image, largest, 1, _REGION_MARGIN)

    def _about_picture(self, instances: list[Instance], image: Image.Image) -> Question:
        names = ", ".join(sorted({name_of(instance) for instance in instances}))
        prompt = self.settings.caption_prompt.replace("{names}", names)
        read = partial(accepted_caption, min_words=self.settings.min_words)
        return Question(ROLE, ask(prompt, image), read, "caption")

    def _about_region(self, instance: Instance, part: Image.Image) -> Question:
        prompt = self.settings.phrase_prompt.replace("{name}", name_of(instance))
        return Question(ROLE, ask(prompt, part), accepted_phrase, "phrase")
