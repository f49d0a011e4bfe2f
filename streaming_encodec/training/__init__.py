"""Training of the codec's models: data recipe, losses, loop (extra ``[train]``)."""
