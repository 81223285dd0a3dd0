"""Questions whose answers have masks, and questions about whole pictures, as GLaMM is trained.

The first wording of a task is asked in tests; those of "segment" and "gcg" are GLaMM's, which
released weights know (arXiv 2311.03356). All others are ours. ``{text}`` is what is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmdet.prompts.objects import ABSENT

#: GLaMM's question for a caption with masks, and as its program for evaluation has it.
GCG_QUESTION = (
    "Could you please give me a detailed description of the image? Please respond with "
    "interleaved segmentation masks for the corresponding parts of the answer."
)
LEGACY_GCG_QUESTION = GCG_QUESTION.replace("interleaved ", "interleaved" + 5 * " ")


@dataclass(frozen=True)
class MaskTask:
    """How something is asked, and how it is answered."""

    wordings: tuple[str, ...]
    answers: tuple[str, ...] = ()  # where they are not the text of the annotations


MASK_TASKS = {
    "segment": MaskTask(
        (
            "What is {text} in this image? Please respond with segmentation mask.",
            "Can you segment {text} in this image?",
            "Where in the image is {text}? Answer with a mask.",
            "Please mark {text} with a segmentation mask.",
            "Give me the mask of {text}.",
            "Which pixels belong to {text}? Output their segmentation mask.",
            "Cut {text} out of this picture.",
            "Segment {text}, please.",
        ),
        (
            "It is <mask>.",
            "Sure, it is <mask>.",
            "Sure, <mask>.",
            "Sure, the segmentation result is <mask>.",
            "<mask>.",
        ),
    ),
    "gcg": MaskTask(
        (
            GCG_QUESTION,
            "Describe the image in detail, with a segmentation mask behind each phrase that names "
            "something.",
            "What is going on in this picture? Mark what you mention with segmentation masks.",
            "Give a description of this image in which phrases have segmentation masks.",
            "Tell me what you see, and show it with masks between your words.",
            "Write a caption for the image with interleaved segmentation masks.",
        ),
    ),
    "describe": MaskTask(
        (
            "Write a short caption for this image.",
            "What does this picture show, in one sentence?",
            "Summarise the image briefly.",
            "Say in a sentence what can be seen here.",
            "Give a brief description of the picture.",
            "Caption this image.",
        ),
    ),
}
#: The answer where nothing is what the text of "segment" says.
NO_TARGET = ABSENT
