"""A detector as one file of tensors in and tensors out: ONNX, or a program of torch.export.

:mod:`.program` is the detector between tensors, :mod:`.text` its prompts, :mod:`.writing` makes the
files, and :mod:`.check` runs them beside PyTorch.
"""
