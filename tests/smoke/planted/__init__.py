"""Planted mistakes: sound data, one mistake at a time, prepared by the real backends."""
