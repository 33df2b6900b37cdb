"""The recipe: what a user writes, as strict models, with the place of every value."""
