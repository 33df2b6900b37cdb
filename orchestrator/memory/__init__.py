"""The memory plan: what a run needs on each GPU and on the host, from numbers alone.

`model` counts parameters from a config.json (`families`: what each family is built of; `known`: the
configs of usual bases). `settings` takes out of a recipe what memory depends on, `precision` says
in which types the backend holds the weights, `activations` and `optimizers` what a layer and a
state cost, `estimate` adds up every term with its formula and source. `fit` asks what fits on which
`gpus`, `automatic` lets it decide `strategy: auto`. `lookup` finds a config, `planning` puts all
together, `view` shows it, `accuracy` compares it with what was measured. No torch, no transformers,
no network but in `lookup`. `ACCURACY.md` says how all this compares with other figures.
"""
