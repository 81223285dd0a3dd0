"""What the RecapD engine asks a vision-language model, and what its conversations ask.

Ten wordings of each, so that neither answers nor what is learned from them hang on one (RegionGPT,
section 3.4; the wordings are ours).
"""

from __future__ import annotations

import random

GLOBAL_PROMPTS = (
    "Describe this image in detail in one paragraph.",
    "What does this picture show? Name the objects, their places and what surrounds them.",
    "Give a full description of the scene in one paragraph.",
    "Write a paragraph about everything that can be seen in this image.",
    "Explain to someone who cannot see it what is in this picture.",
    "Look at the whole image and describe its content thoroughly.",
    "Which objects are in this scene, what are they like, and how are they arranged? Answer in a "
    "paragraph.",
    "Describe foreground and background of this picture with all notable details.",
    "Write down what a careful observer sees in this image.",
    "Give a precise account of this image: objects, colours, positions and setting.",
)

REGION_PROMPTS = (
    "This is a close-up from a larger image, of which is known: {context}\n"
    "Describe the {name} in the close-up in detail.",
    "The whole image can be described so: {context}\n"
    "The picture that you see is a part of it. What is the {name} in it like?",
    "{context}\nThat is the scene around this close-up. Give a detailed description of the {name}.",
    "Context: {context}\nWhat you see is a region of that image. Describe its {name} thoroughly.",
    "Knowing that the full picture shows this: {context}\n"
    "describe the {name} in the present cut-out in several sentences.",
    "A region was cut out of an image. About the image: {context}\n"
    "About the region: describe the {name} with its look, its state and what it does.",
    "Here is a part of a scene. The scene: {context}\n"
    "Write a detailed description of the {name} in this part.",
    "Read what the entire image shows: {context}\n"
    "Now look closely at the {name} here and describe every detail of it.",
    "The close-up belongs to this scene: {context}\n"
    "Describe the {name} so that one could tell it from others of its kind.",
    "{context}\nThis much about the image as a whole. The close-up shows its {name}: describe "
    "colour, shape, material, pose and surroundings of it.",
)

_TRUTH = " State only what can be seen; do not guess."

#: What the trained model is asked; ``<region>`` is the mark of the region.
QUESTIONS = (
    "Describe <region> in detail.",
    "Give a detailed description of <region>.",
    "What can you say about <region>? Go into detail.",
    "Describe thoroughly what <region> shows.",
    "Tell me everything that can be seen in <region>.",
    "Look closely at <region> and describe it in several sentences.",
    "Write a detailed caption of <region>.",
    "What is in <region>, and what is it like in detail?",
    "Explain in detail what <region> contains.",
    "Give a full account of <region>.",
)


def global_prompt(generator: random.Random) -> str:
    """The question about a whole picture."""
    return generator.choice(GLOBAL_PROMPTS) + _TRUTH


def region_prompt(generator: random.Random, name: str, context: str) -> str:
    """The question about a close-up.

    Args:
        generator: draws the wording.
        name: class of the object; without it models name the wrong one.
        context: the caption of the whole picture; without it relations are lost.
    """
    wording = generator.choice(REGION_PROMPTS)
    return wording.replace("{name}", name).replace("{context}", context) + _TRUTH


def question(generator: random.Random, number: int) -> str:
    """The question of a conversation about one region.

    Args:
        generator: draws the wording.
        number: of the region in its row.
    """
    return generator.choice(QUESTIONS).replace("<region>", f"<region:{number}>")
