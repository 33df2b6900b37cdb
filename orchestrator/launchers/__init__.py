"""Launchers: the only part that knows nodes, ranks and ports."""
