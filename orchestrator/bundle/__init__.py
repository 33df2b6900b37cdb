"""Bundles: all that a recipe needs, in one folder, for a site without any network."""
