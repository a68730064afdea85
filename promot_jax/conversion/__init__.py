"""Checkpoints and methods in the formats of others, in and out."""
