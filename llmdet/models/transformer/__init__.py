"""Grounding DINO's transformer, readable top to bottom: pyramid, encoder, proposals, decoder."""
