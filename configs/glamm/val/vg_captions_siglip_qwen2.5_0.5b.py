"""Descriptions of Visual Genome's regions, with SigLIP, Qwen2.5 0.5B and SAM ViT-B."""

_base_ = ["../combined_siglip_qwen2.5_0.5b.py", "../../_base_/datasets/vg_captions.py"]
