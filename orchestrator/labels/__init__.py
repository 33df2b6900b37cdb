"""The label report: which tokens are trained, read from the backend's own prepared data."""
