"""Adaptation methods: what is added to a backbone, and which parameters are its own."""
