"""The report on the environment: complete, quick, and with remedies for what is broken."""

import importlib
import importlib.metadata
import subprocess
import sys

import torch

from llmdet.utils import env


def test_the_report_names_versions_device_and_operators():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "llmdet.utils.env"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert importlib.metadata.version("torch") in result.stdout
    assert "deformable attention" in result.stdout
    assert "operators of mmcv" in result.stdout
    assert len(result.stdout.splitlines()) < 30


def test_a_missing_package_gets_its_remedy(monkeypatch):
    monkeypatch.setattr(env, "PACKAGES", (("no-such-package", "no_such_package"),))
    (finding,) = env._packages()
    assert finding.value == "not installed"
    assert "requirements/lock.txt" in finding.remedy


def test_opencv_without_its_system_library_gets_the_headless_build_as_remedy(monkeypatch):
    def refuse(name: str):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", refuse)
    finding = env._package("numpy", "cv2")
    assert "does not import" in finding.value
    assert "opencv-python-headless" in finding.remedy


def test_a_gpu_that_torch_cannot_use_is_explained(monkeypatch):
    monkeypatch.setattr(env.os.path, "exists", lambda path: path == "/proc/driver/nvidia/version")
    assert "CPU only" in env._cuda_remedy(None)
    assert "driver" in env._cuda_remedy("13.0")
    monkeypatch.setattr(env.os.path, "exists", lambda path: False)
    assert env._cuda_remedy("13.0") == ""


def test_every_gpu_is_listed(monkeypatch):
    class Device:
        name, total_memory, major, minor = "Test GPU", 24 * 2**30, 8, 6

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    lines = {finding.name: finding.value for finding in env._devices()}
    assert lines["cuda:1"] == "Test GPU, 24 GiB, compute capability 8.6, --amp runs in bf16"
    assert lines["processes talk over"] == "nccl"
