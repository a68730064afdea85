"""The three ids that a model's batches depend on, as its configuration gives them."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialTokens:
  """Ids of a model; the defaults are those of T5, mT5 and the micro world.

  Attributes:
    pad: fills rows up to a common length; -1 where the family has no such token.
    eos: ends every target.
    decoder_start: the decoder's first input; None for decoder-only models, which have no separate
      decoder inputs.
  """

  pad: int = 0
  eos: int = 1
  decoder_start: int | None = 0

  @classmethod
  def of(cls, config: Any) -> "SpecialTokens":
    """Those of a backbone's configuration."""
    return cls(pad=config.pad, eos=config.eos, decoder_start=config.decoder_start)


T5 = SpecialTokens()
