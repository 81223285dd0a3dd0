"""Compare this program with recorded runs of the original, tensor by tensor.

Each FOLDER holds one kind of recording: ``detector_eval``, ``detector_loss``, ``lmm_loss`` or
``pipeline`` of LLMDet; ``region_extractor``, ``splice`` or ``region_cls`` of SpatialRGPT;
``sam_mask_path``, ``losses``, ``region_encoder``, ``text_pipeline``, ``eval_postprocess`` or
``full_model`` of GLaMM. Tensors must agree within 1e-4, losses and gradient norms within 1e-4 of
their value, what was recorded in 16 bits within what they cost the original, everything else
exactly. Exit code 1 if anything does not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.errors import DataError
from llmdet.utils.cli import run_cli


def main() -> int:
    """Parse arguments, compare every folder, print a row per value."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--failed", action="store_true", help="print only what does not agree")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    return max([compare(folder, args.failed) for folder in args.folders])


def compare(folder: Path, only_failed: bool) -> int:
    """Print the rows of one folder; return 1 if any fails, else 0."""
    module = importlib.import_module(kind_of(folder))
    count = failed = 0
    print(f"{folder}\n{'max abs':>11} {'max rel':>11}         name")
    for row in module.check(folder):
        count, failed = count + 1, failed + (not row.passed)
        if only_failed and row.passed:
            continue
        verdict = "pass" if row.passed else "FAIL"
        print(f"{row.max_abs:11.3e} {row.max_rel:11.3e}  {verdict}   {row.name}  {row.note}")
    print(f"{count - failed} of {count} agree\n")
    return 1 if failed or not count else 0


def kind_of(folder: Path) -> str:
    """Module that compares the recordings in ``folder``, judged by what the folder holds."""
    if (folder / "string_functions.json").exists():
        return "llmdet.testing.parity.pipeline"
    if _is_spatialrgpt(folder):
        return "llmdet.testing.parity.regions"
    expected = folder / "expected.json"
    if _holds(expected, "postprocess"):
        return "llmdet.testing.parity.mask_text"
    if _holds(expected, "teacher_forced") or _holds(expected, "generate"):
        return "llmdet.testing.parity.mask_model"
    if (folder / "deviation.json").exists():
        return "llmdet.testing.parity.fused_regions"
    if (folder / "expected_gcg.json").exists():
        return "llmdet.testing.parity.text_pipeline"
    if (folder / "images_rgb_uint8_hwc.pt").exists() or (folder / "tensors.pt").exists():
        return "llmdet.testing.parity.masks"
    if not (folder / "inputs.json").exists() or not (folder / "state_dict.pt").exists():
        raise DataError(
            f"{folder} holds no recording that can be compared: it has neither "
            "string_functions.json nor inputs.json with state_dict.pt"
        )
    if (folder / "lmm").exists():
        return "llmdet.testing.parity.captions"
    variants = "variants" in json.loads((folder / "inputs.json").read_text())
    return f"llmdet.testing.parity.{'losses' if variants else 'detection'}"


def _holds(file: Path, key: str) -> bool:
    return file.exists() and key in json.loads(file.read_text())


def _is_spatialrgpt(folder: Path) -> bool:
    """Whether the folder records region encoders: its own settings, or windows around boxes."""
    config, expected = folder / "model_config.json", folder / "expected.json"
    if config.exists():
        settings = json.loads(config.read_text())
        return "region_extractor_type" in settings or "image_tokens" in settings
    return expected.exists() and "get_crop_box" in json.loads(expected.read_text())


if __name__ == "__main__":
    run_cli(main)
