"""One module per kind: observe (reads) and plan (pure)."""
