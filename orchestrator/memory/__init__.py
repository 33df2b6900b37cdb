"""The memory plan: what a run needs on each GPU and on the host, from numbers alone.

`model` counts parameters from a config.json (`families` says what each family is built of, `known`
holds the configs of usual bases), `settings` takes out of a recipe what memory depends on,
`estimate` adds up the bytes of every term with its formula and source, `fit` asks what fits on which
GPUs, `lookup` finds a config, `view` shows it, `accuracy` compares it with what was measured.
No torch, no transformers, no network but in `lookup`.
"""
