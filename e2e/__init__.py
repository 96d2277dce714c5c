"""End-to-end harness and suite: a real cluster, made where none is given."""
