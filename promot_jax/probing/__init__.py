"""Classifiers on the features of a network, and their scores."""
