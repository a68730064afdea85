"""T5 1.0, T5 1.1, mT5 and umT5: one encoder-decoder whose configuration tells them apart.

Raffel et al., 2020, arXiv:1910.10683; Shazeer, 2020, arXiv:2002.05202 (gated mlp); Xue et al., 2021,
arXiv:2010.11934.
"""

from promot_jax.models.encoder_decoder import EncoderDecoder


class T5(EncoderDecoder):
  """An encoder-decoder with T5X's parameter names; see `T5Config`.

  Example:
    model = T5(sizes.micro(vocab_size=700), nnx.Rngs(0))
    logits = model.logits(model.hidden(batch))
  """
