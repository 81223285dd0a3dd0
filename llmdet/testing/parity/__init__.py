"""Comparison with recorded runs of the original program, tensor by tensor."""
