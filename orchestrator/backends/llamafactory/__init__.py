"""LLaMA-Factory 0.9.5: how a recipe is written for it."""
