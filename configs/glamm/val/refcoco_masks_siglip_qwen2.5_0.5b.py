"""Masks of RefCOCO's, RefCOCO+'s and RefCOCOg's expressions, with SigLIP, Qwen2.5 0.5B and SAM ViT-B."""

_base_ = ["../combined_siglip_qwen2.5_0.5b.py", "../../_base_/datasets/referring_masks.py"]
