"""Adapters of Hugging Face's PEFT: a small folder beside a model that others keep.

`reader` and `writer` know the folder, and each method's file knows what is in it.
"""
