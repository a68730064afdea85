"""Losses, objectives, optimizers, the jitted train step and the loop around it."""
