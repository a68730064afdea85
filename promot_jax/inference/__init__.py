"""Answers of a model to texts that belong to no task."""
