"""From a configuration that somebody already trains with to a recipe, with nothing lost.

`detect` says whose file it is, `known` takes out what the pinned release would ignore or refuse,
`modernise` rewrites what it accepts for old times' sake, `axolotl` and `llamafactory` map, and
`importer` renders the result, compares, and puts what still differs under `native`.
"""
