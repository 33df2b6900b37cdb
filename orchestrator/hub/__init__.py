"""Models and data sets of the hub: what is needed of them, fetched, checked, found again."""
