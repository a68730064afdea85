"""promot_jax: adapt pretrained text-to-text models and measure what they keep."""

__version__ = "0.1.0"
