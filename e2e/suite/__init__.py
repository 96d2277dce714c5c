"""The stories, on a real cluster."""
