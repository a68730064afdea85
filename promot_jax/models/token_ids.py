"""The ids to which a backbone's configuration gives a meaning; decoding and metrics ask here.

A network without a configuration (an ensemble, a toy) gets T5's ids.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenIds:
  """Hashable, so that it can be a static argument of a compiled program.

  pad: marks padding in batches, and follows the end of an output.
  eos: ends a sequence.
  forced_first: token that every output begins with; None: whatever the model writes.
  forced_last: token that every output of the greatest length ends with; None: the same.
  """

  pad: int = 0
  eos: int = 1
  forced_first: int | None = None
  forced_last: int | None = None

  @classmethod
  def of(cls, model: Any) -> "TokenIds":
    """Those of `model.config`, as far as it has them."""
    config = getattr(model, "config", None)
    return cls(
      pad=getattr(config, "pad", cls.pad),
      eos=getattr(config, "eos", cls.eos),
      forced_first=getattr(config, "forced_bos", None),
      forced_last=getattr(config, "forced_eos", None),
    )
