"""The ids to which a backbone's configuration gives a meaning; batches, decoding and metrics ask here.

Everyone may import it: it needs nothing of models or of data.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenIds:
  """Hashable, so that it can be a static argument of a compiled program; the defaults are T5's.

  pad: fills rows up to a common length, and follows the end of an output; -1 where no token does.
  eos: ends every target.
  decoder_start: the decoder's first input; None for decoder-only models, which have no separate
    decoder inputs.
  forced_first: token that every output begins with; None: whatever the model writes.
  forced_last: token that every output of the greatest length ends with; None: the same.
  """

  pad: int = 0
  eos: int = 1
  decoder_start: int | None = 0
  forced_first: int | None = None
  forced_last: int | None = None

  @classmethod
  def of(cls, model: Any) -> "TokenIds":
    """Those of a backbone or of its configuration, and T5's where it has none (an ensemble, a toy)."""
    config = getattr(model, "config", model)
    return cls(
      pad=getattr(config, "pad", cls.pad),
      eos=getattr(config, "eos", cls.eos),
      decoder_start=getattr(config, "decoder_start", cls.decoder_start),
      forced_first=getattr(config, "forced_bos", None),
      forced_last=getattr(config, "forced_eos", None),
    )


T5 = TokenIds()
