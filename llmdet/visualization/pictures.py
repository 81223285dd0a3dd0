"""Finished pictures: to a file or to the screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from llmdet.errors import ConfigError, DataError


def save_picture(image: np.ndarray, path: str | Path) -> None:
    """Write an RGB picture, making its folder where needed.

    Args:
        image: [H, W, 3] uint8 RGB.
        path: Its suffix decides the format.

    Raises:
        DataError: The suffix is no image format, or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=92)
    except (OSError, ValueError) as error:
        raise DataError(f"The picture {path} cannot be written: {error}.") from error


def show_picture(image: np.ndarray, title: str, wait_time: float = 0.0) -> None:
    """Show an RGB picture in a window until it is closed, or for ``wait_time`` seconds.

    Raises:
        ConfigError: There is no screen to show it on.
    """
    import matplotlib.pyplot as plt
    from matplotlib.backends import BackendFilter, backend_registry

    backend = plt.get_backend().lower()
    in_notebook = "inline" in backend or "ipympl" in backend
    if backend not in backend_registry.list_builtin(BackendFilter.INTERACTIVE) and not in_notebook:
        raise ConfigError(
            f"No window can be opened here (matplotlib's backend is {backend!r}): leave out --show "
            "and look at the files, or work on a machine with a screen and install tkinter or PyQt."
        )
    height, width = image.shape[:2]
    figure = plt.figure(title, figsize=(width / 100, height / 100), clear=True)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(image)
    if wait_time > 0:
        plt.show(block=False)
        plt.pause(wait_time)
    else:
        plt.show()
    plt.close(figure)
