"""Weights, gradients and optimizer states are spread over all processes of a run.

``checkpoints="sharded"`` has every process write its own part, for models whose trainable weights
are too many to gather in one place.
"""

strategy = dict(type="FSDP2", checkpoints="consolidated")
