"""Figures about runs: one file an analysis, each a frozen value that is called with what it is about."""
