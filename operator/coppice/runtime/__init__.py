"""What runs: watches, the work queue, workers, metrics, probes."""
