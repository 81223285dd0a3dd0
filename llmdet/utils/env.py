"""What LLMDet runs on, on one screen: ``python -m llmdet.utils.env``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import llmdet

#: Distributions whose versions are shown; the second name is the module that must import.
PACKAGES = (
    ("torch", "torch"),
    ("torchvision", "torchvision"),
    ("transformers", "transformers"),
    ("tokenizers", "tokenizers"),
    ("peft", "peft"),
    ("onedl-mmengine", "mmengine"),
    ("onedl-mmcv", "mmcv"),
    ("onedl-mmdetection", "mmdet"),
    ("opencv-python-headless", "cv2"),
    ("numpy", "numpy"),
    ("pycocotools", "pycocotools"),
)
#: Packages without which something named is slower or missing.
OPTIONAL = (
    ("liger-kernel", "fused language-model loss on CUDA", "pip install -e '.[gpu]'"),
    ("deepspeed", "ZeRO for language models that outgrow a GPU", "pip install -e '.[deepspeed]'"),
    ("openai", "language models behind an endpoint", "pip install -e '.[chat]'"),
    ("pycocoevalcap", "caption metrics", "pip install -e '.[captions]'"),
    ("gradio", "web demo", "pip install -e '.[demo]'"),
    ("onnxruntime", "export", "pip install -e '.[export]'"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    remedy: str = ""  # what to do about it; empty where nothing is wrong


def report() -> list[Finding]:
    """All findings, in the order in which they are shown."""
    sections: tuple[Callable[[], Iterator[Finding]], ...] = (
        _system,
        _packages,
        _devices,
        _operators,
        _optional,
    )
    return [finding for section in sections for finding in section()]


def _system() -> Iterator[Finding]:
    version = platform.python_version()
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "python",
        f"{version} ({sys.executable})",
        "" if fits else "LLMDet is tested with Python 3.10 to 3.13; use one of these.",
    )
    yield Finding("llmdet", f"{llmdet.__version__} ({os.path.dirname(llmdet.__file__)})")
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} CPU cores")


def _packages() -> Iterator[Finding]:
    for distribution, module in PACKAGES:
        yield _package(distribution, module)


def _package(distribution: str, module: str) -> Finding:
    reinstall = "pip install --no-deps -r requirements/lock.txt"
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Finding(distribution, "not installed", f"Install what is pinned: {reinstall}")
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever an import may raise is what this report is about
        return Finding(distribution, f"{version}, does not import: {error}", _import_remedy(error))
    return Finding(distribution, version)


def _import_remedy(error: Exception) -> str:
    if "libGL" in str(error) or "libgthread" in str(error):
        return (
            "The build of OpenCV with windows needs system libraries; use the one without: pip "
            "uninstall -y opencv-python && pip install --force-reinstall --no-deps "
            "opencv-python-headless"
        )
    return "Install what is pinned: pip install --no-deps -r requirements/lock.txt"


def _devices() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("CUDA", "none, everything runs on CPU", _cuda_remedy(torch.version.cuda))
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Finding(
            f"cuda:{index}",
            f"{device.name}, {device.total_memory / 2**30:.0f} GiB, compute capability "
            f"{device.major}.{device.minor}, --amp runs in {'bf16' if bf16 else 'fp16'}",
        )
    distributed = torch.distributed.is_available()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    yield Finding("processes talk over", backend if distributed else "nothing")


def _cuda_remedy(built_for: str | None) -> str:
    has_gpu = os.path.exists("/proc/driver/nvidia/version")
    if not has_gpu:
        return ""
    if built_for is None:
        return "This torch was built for CPU only; install the one of requirements/lock.txt."
    return (
        f"There is an NVIDIA driver, but torch (CUDA {built_for}) cannot use it: update the "
        "driver, or check CUDA_VISIBLE_DEVICES."
    )


def _operators() -> Iterator[Finding]:
    from llmdet.ops.mmcv_finder import EXTENSION, is_stand_in

    stand_in = is_stand_in(importlib.import_module(EXTENSION))
    yield Finding(
        "operators of mmcv",
        "stand-in: nms and roi_align of torchvision" if stand_in else "compiled",
    )
    import torch

    from llmdet.ops.deformable_attention import choose_implementation

    device = "cuda" if torch.cuda.is_available() else "cpu"
    inference, training = (choose_implementation(device, wants_gradients=x) for x in (False, True))
    yield Finding("deformable attention", f"{inference}; while training {training} ({device})")


def _optional() -> Iterator[Finding]:
    for distribution, purpose, command in OPTIONAL:
        try:
            yield Finding(distribution, importlib.metadata.version(distribution))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(distribution, f"not installed (optional: {purpose}; {command})")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; 1 if a package is missing."""
    argparse.ArgumentParser(prog="python -m llmdet.utils.env", description=__doc__).parse_args(argv)
    findings = report()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        sys.stdout.write(f"{finding.name:<{width}}  {finding.value}\n")
    remedies = [finding for finding in findings if finding.remedy]
    for finding in remedies:
        sys.stdout.write(f"\n{finding.name}: {finding.remedy}\n")
    return 1 if any(finding.value.startswith("not installed") for finding in remedies) else 0


if __name__ == "__main__":
    from llmdet.utils.cli import run_cli

    run_cli(main)
