"""Axolotl 0.19.0: how a recipe is written for it."""
