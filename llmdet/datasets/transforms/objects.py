"""Conversations about candidate boxes: questions about annotated boxes, proposals among them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from llmdet.datasets.candidates import choose_boxes, overlapping
from llmdet.datasets.ledger import SharedLedger
from llmdet.datasets.sample import Regions
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import Conversation, ask
from llmdet.prompts.object_questions import (
    SEPARATOR,
    Wordings,
    count_answer,
    objects_in,
    renumber_objects,
)
from llmdet.prompts.objects import ObjectGrammar, object_mark, with_candidates
from llmdet.registry import TRANSFORMS
from llmdet.utils.construct import construct

TOO_MANY = "conversation about more objects than there are candidates"
LEFT_OUT = "box that was no candidate, as there were too many"
#: Tasks whose answers follow from boxes with names.
TASKS = ("detect", "count", "name")
_GRAMMAR = ObjectGrammar()


@TRANSFORMS.register_module()
class AskForObjects(BaseTransform):
    """Makes a conversation of one task of an image's boxes and their names.

    Phrases are asked to detect alone: an expression such as "man in red on the left" names no
    category and cannot be counted.

    Required keys: instances, and text (label map) or phrases, as data sets give them. Changed keys:
    regions (the boxes), conversations (the one that was made). A sample without boxes, or without
    names, stays as it is.

    Args:
        wordings: task -> settings of :class:`Wordings`.
        shares: task -> how often it is chosen for classes, of "detect", "count" and "name".
        absent: how often a question to detect or count is about a class of the label map that the
            image does not show.
        most_names: of a question to detect.
    """

    def __init__(
        self,
        wordings: Mapping[str, Mapping[str, Any]],
        shares: Mapping[str, float] | None = None,
        absent: float = 0.1,
        most_names: int = 5,
    ) -> None:
        self.wordings = {
            task: construct(Wordings, given, f"AskForObjects.wordings.{task}")
            for task, given in wordings.items()
        }
        self.shares = dict(shares or {"detect": 0.7, "count": 0.1, "name": 0.2})
        self.absent, self.most_names = absent, most_names
        unknown = [task for task in self.shares if task not in TASKS]
        if unknown:
            raise ConfigError(
                f"AskForObjects.shares: {unknown[0]!r} cannot be asked; use {', '.join(TASKS)}"
            )
        unworded = [task for task in ("detect", *self.shares) if task not in self.wordings]
        if unworded:
            raise ConfigError(
                f"AskForObjects.wordings has no {unworded[0]!r}: give wordings of every task of "
                "shares, and of 'detect', which phrases are asked in"
            )
        if not 0 <= absent <= 1 or most_names < 1:
            raise ConfigError(
                f"AskForObjects: absent={absent} lies outside of 0..1, or most_names={most_names} "
                "is below 1"
            )

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys."""
        instances = [each for each in results["instances"] if not each.get("ignore_flag")]
        names = _names(results)
        if not instances or not names:
            return results
        objects: dict[str, list[int]] = {}
        for index, instance in enumerate(instances):
            objects.setdefault(names[int(instance["bbox_label"])], []).append(index)
        task = "detect"
        if "phrases" not in results:
            (task,) = random.choices(list(self.shares), list(self.shares.values()))
        results["conversations"] = (
            self._conversation(task, objects, self._absent(results, names)),
        )
        results["regions"] = Regions(np.asarray([i["bbox"] for i in instances], np.float32))
        return results

    def _absent(self, results: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
        """Names that are not in the image, where this sample is asked for one."""
        if "phrases" in results or random.random() >= self.absent:
            return []
        shown = {names[int(instance["bbox_label"])] for instance in results["instances"]}
        return sorted(set(names.values()) - shown)

    def _conversation(
        self, task: str, objects: Mapping[str, Sequence[int]], absent: Sequence[str]
    ) -> Conversation:
        if task == "name":
            name = random.choice(list(objects))
            index = random.choice(objects[name])
            return ask(self._question(task, object_mark(index)), _GRAMMAR.write({name: [index]}))
        if absent:
            name = random.choice(absent)
            return ask(self._question(task, name), _GRAMMAR.write({name: []}))
        most = 1 if task == "count" else min(self.most_names, len(objects))
        chosen = random.sample(list(objects), random.randint(1, most))
        answer = _GRAMMAR.write({name: objects[name] for name in chosen})
        if task == "count":
            answer = count_answer(len(objects[chosen[0]]), answer)
        return ask(self._question(task, SEPARATOR.join(chosen)), answer)

    def _question(self, task: str, asked: str) -> str:
        given = self.wordings[task]
        return given.ask(asked, random.randrange(len(given.wordings)))


@TRANSFORMS.register_module()
class MixCandidates(BaseTransform):
    """Lists a sample's regions, and proposals among them, as candidates of its conversations.

    The boxes of regions come first into the list, then proposals that are none of them, at most
    ``most`` together, in random order. ``<obj3>`` of a turn means region 3 before and the same box
    afterwards, whatever its number.

    Required keys: regions, conversations. Optional key: proposals ([P, 4] xyxy, or [P, 5] with a
    score). Changed keys: regions (all candidates), conversations. Conversations about more
    objects than fit are left out and counted in `dropped`, and so are boxes.

    Args:
        most: candidates of an image.
        rule: by which the best proposals are taken, see
            :func:`~llmdet.datasets.candidates.choose_boxes`.
        overlap: IoU from which on a proposal is the object of a region.
        shuffle: False for regions in their order and proposals behind them, where the rows'
            order is random already.
    """

    def __init__(
        self, most: int = 100, rule: str = "first", overlap: float = 0.5, shuffle: bool = True
    ) -> None:
        self.most, self.rule, self.overlap, self.shuffle = most, rule, overlap, shuffle
        self.dropped = SharedLedger(TOO_MANY, LEFT_OUT)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys.

        Raises:
            DataError: a turn names an object that is no region.
        """
        regions: Regions = results.get("regions") or Regions()
        conversations = tuple(results.get("conversations") or ())
        named = sorted({index for each in conversations for index in _named(each, len(regions))})
        if len(named) > self.most:
            self.dropped.note(TOO_MANY)
            conversations, named = (), []
        others = [index for index in range(len(regions)) if index not in set(named)]
        kept = sorted([*named, *others[: self.most - len(named)]])
        proposals = self._proposals(results.get("proposals"), regions, self.most - len(kept))
        boxes = np.concatenate([regions.boxes[kept], proposals]).astype(np.float32)
        order = list(range(len(boxes)))
        if self.shuffle:
            random.shuffle(order)
        place = {kept[old]: new for new, old in enumerate(order) if old < len(kept)}
        masks = None
        if regions.masks is not None:
            of_kept = [regions.masks[index] for index in kept]
            masks = tuple(of_kept[old] if old < len(kept) else None for old in order)
        if len(kept) < len(regions):
            self.dropped.note(LEFT_OUT, number=len(regions) - len(kept))
        results["regions"] = Regions(boxes[order], masks)
        results["conversations"] = tuple(
            with_candidates(_renumbered(each, place), len(boxes)) for each in conversations
        )
        return results

    def _proposals(self, proposals: Any, regions: Regions, most: int) -> np.ndarray:
        """Those [at most ``most``, 4] that are no region."""
        if proposals is None or not len(proposals):
            return np.zeros((0, 4), np.float32)
        array = np.asarray(proposals, np.float32)
        boxes, scores = array[:, :4], array[:, 4] if array.shape[1] > 4 else None
        new = ~overlapping(boxes, regions.boxes, self.overlap)
        chosen = choose_boxes(boxes[new], most, self.rule, None if scores is None else scores[new])
        return boxes[new][chosen]


def _names(results: Mapping[str, Any]) -> dict[int, str]:
    """Label -> name, of detection data and of phrases."""
    if "phrases" in results:
        named = {number: each["phrase"] for number, each in results["phrases"].items()}
        return {n: each if isinstance(each, str) else each[0] for n, each in named.items()}
    text = results.get("text")
    return {int(label): name for label, name in text.items()} if isinstance(text, Mapping) else {}


def _named(conversation: Conversation, regions: int) -> list[int]:
    found = [number for turn in conversation.turns for number in objects_in(turn.text)]
    found += [slot.index for slot in conversation.slots if slot.kind == "region"]
    if found and max(found) >= regions:
        raise DataError(
            f"a conversation names {object_mark(max(found))}, but there are {regions} regions"
        )
    return found


def _renumbered(conversation: Conversation, place: Mapping[int, int]) -> Conversation:
    """The conversation with the objects' places in the list, lists of objects in their order."""
    numbered = with_candidates(conversation, 0) if "region" in conversation.kinds else conversation
    return Conversation(
        tuple(replace(turn, text=renumber_objects(turn.text, place)) for turn in numbered.turns)
    )
