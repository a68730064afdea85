"""Saving and restoring: our own checkpoints, and those of other libraries."""
