"""BART: an encoder-decoder with learned positions, norms after each residual, and biases.

Lewis et al., 2020, arXiv:1910.13461; the arithmetic is that of transformers'
`BartForConditionalGeneration`.  The output kernel is the embedding table.
"""

from promot_jax.models.encoder_decoder import EncoderDecoder


class Bart(EncoderDecoder):
  """An encoder-decoder with, where it has the same parts, the names of T5; see `BartConfig`.

  Example:
    model = Bart(bart_sizes.bart_base(), nnx.Rngs(0))
    logits = model.logits(model.hidden(batch))
  """
