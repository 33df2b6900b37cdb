"""The two training backends: what each calls things, and what it cannot do."""
