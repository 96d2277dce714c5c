"""The `coppice` command."""
