"""Packaging of LLMDet; the tested environment is requirements/lock.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """``__version__`` of the package, read without importing it."""
    source = (ROOT / "llmdet" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError("llmdet/__init__.py has no __version__")
    return found.group(1)


def requirements() -> list[str]:
    """The ranges of requirements.txt without its comments."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def config_packages() -> dict[str, str]:
    """Folders of configs by the name under which the package has them, ``llmdet.configs...``."""
    folders = {path.parent for path in (ROOT / "configs").rglob("*.py")}
    folders |= {ROOT / "configs", ROOT / "configs" / "_base_"}
    places = sorted(folder.relative_to(ROOT) for folder in folders)
    return {".".join(["llmdet", *place.parts]): place.as_posix() for place in places}


setup(
    name="llmdet",
    version=version(),
    description="Open-vocabulary object detection taught by a language model",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=[
        *find_packages(include=["llmdet", "llmdet.*"], exclude=["llmdet.testing*"]),
        *config_packages(),
    ],
    package_dir=config_packages(),
    entry_points={"console_scripts": ["llmdet = llmdet.cli.__main__:main"]},
    python_requires=">=3.10,<3.14",
    install_requires=requirements(),
    extras_require={
        "gpu": ["liger-kernel>=0.6"],
        "chat": ["json-repair>=0.50", "openai>=3"],
        "captions": ["pycocoevalcap>=1.2"],
        "demo": ["gradio>=6"],
        "results": ["pandas>=2.2", "supervision>=0.25"],
        "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
        "deepspeed": ["deepspeed>=0.19.8"],
        # Both declare packages that we do without; see requirements/lock.txt.
        "track": ["supervision>=0.31", "trackers>=2.6"],
        "s3": ["s3fs>=2025.3"],
        "gs": ["gcsfs>=2025.3"],
        "docs": [
            "ipykernel>=6",
            "mkdocs-material>=9.5",
            "mkdocstrings-python>=1.16",
            "nbclient>=0.10",
        ],
        "dev": [
            "faster-coco-eval>=1.7",
            "flask>=3",
            "flask-cors>=5",
            "hotcoco>=1.3,<2",
            "hypothesis>=6.100",
            "lvis>=0.5.3",
            "moto>=5",
            "mypy>=1.15",
            "packaging>=24",
            "pycocoevalcap>=1.2",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "s3fs>=2025.3",
            "scikit-image>=0.24",
            "selenium>=4.30",
        ],
    },
)
