"""The sections of a recipe, one idea per module; `recipe.models` puts them together."""
