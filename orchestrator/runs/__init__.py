"""Runs: their folders, records, and how they go on after an interruption."""
