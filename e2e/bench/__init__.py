"""Figures: how long clones take and what they cost, beside the same work without Coppice in the same run."""
