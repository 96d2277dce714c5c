"""A mirror's copies: each refresh makes the next one, beside the one that is served."""
