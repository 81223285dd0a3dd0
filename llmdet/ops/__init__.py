"""Operators that usually need a compiler, without one: PyTorch, Triton and torchvision.

Importing this package loads nothing heavy; import the operator's own module.
"""
