"""The ids to which a backbone's configuration gives a meaning; batches, decoding and metrics ask here.

Everyone may import it: it needs nothing of models or of data.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from promot_jax.errors import ConfigError

Ids = int | tuple[int, ...] | None
"""One id, several of which each will do, or none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenIds:
  """Hashable, so that it can be a static argument of a compiled program.

  pad: fills rows up to a common length, and follows the end of an output; -1 where no token does.
  eos: ends every target.
  output_ends: each of them ends an output; None: eos alone; (): nothing does.
  decoder_start: the decoder's first input; None for decoder-only models, which have no separate
    decoder inputs.
  forced_first: token that every output begins with, or those it may begin with; None: whatever the
    model writes.
  forced_last: token that every output of the greatest length ends with, or those it may end with;
    None: the same.
  """

  pad: int
  eos: int
  output_ends: tuple[int, ...] | None = None
  decoder_start: int | None
  forced_first: Ids = None
  forced_last: Ids = None

  def __post_init__(self):
    ends = (self.eos,) if self.output_ends is None else tuple(self.output_ends)
    object.__setattr__(self, "output_ends", ends)

  @property
  def ends(self) -> tuple[int, ...]:
    """The ids that end an output."""
    assert self.output_ends is not None  # set above
    return self.output_ends

  def before_end(self, tokens: Iterable[int]) -> list[int]:
    """The tokens of an output before the first of its ends; all of them where it was cut off."""
    kept: list[int] = []
    for token in map(int, tokens):
      if token in self.ends:
        break
      kept.append(token)
    return kept

  @classmethod
  def of(cls, model: Any) -> "TokenIds":
    """Those of a backbone or of its configuration.

    Raises:
      ConfigError: it says nothing of its tokens.
    """
    if not isinstance(model, HasTokenIds):
      raise ConfigError(
        f"{type(model).__name__} does not say which tokens pad, begin and end its sequences; give it a"
        " `token_ids`, a TokenIds with its own pad, eos and decoder_start."
      )
    return model.token_ids


@runtime_checkable
class HasTokenIds(Protocol):
  """A backbone, or the configuration of one."""

  @property
  def token_ids(self) -> TokenIds:
    """What pads, begins and ends its sequences."""
    ...


def as_tuple(ids: int | Sequence[int] | None) -> tuple[int, ...]:
  """The ids of a value that may be one, several or none."""
  if ids is None:
    return ()
  return (ids,) if isinstance(ids, int) else tuple(ids)


def is_id(value: Any) -> bool:
  """Whether a value from a file can be a token's id."""
  return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def settle(config: Any) -> None:
  """Makes the fields of a new configuration that name tokens hashable: gin and JSON give lists.

  Args:
    config: a frozen one with `vocab_size`, `eos`, `output_ends`, and maybe `forced_bos` and
      `forced_eos`.

  Raises:
    ConfigError: a value is no id, or what ends targets does not end outputs.
  """
  kind = type(config).__name__
  for name in ("output_ends", "forced_bos", "forced_eos"):
    value = getattr(config, name, None)
    if value is None:
      continue
    # Outputs may end by none, so `output_ends` may be empty; what is forced names at least one.
    several, forced = isinstance(value, list | tuple), name != "output_ends"
    ids = tuple(value) if several else (value,)
    if not all(map(is_id, ids)) or (not ids if forced else not several):
      wanted = "an id, several, or None" if forced else "a tuple of ids, or None"
      raise ConfigError(f"{kind}.{name}={value!r} must be {wanted}.")
    if several:
      ids = tuple(dict.fromkeys(ids))
      object.__setattr__(config, name, ids)
    if forced and any(i >= config.vocab_size for i in ids):
      raise ConfigError(
        f"{kind}.{name}={value!r} forces a token that a vocabulary of {config.vocab_size} does not"
        " have; correct it, or set it to None."
      )
  if config.output_ends and config.eos not in config.output_ends:
    raise ConfigError(
      f"{kind}.output_ends={config.output_ends} lacks eos={config.eos}, which ends targets, so that a"
      " tuned model would write on behind its answers; add it, or set eos to one of them."
    )


T5 = TokenIds(pad=0, eos=1, decoder_start=0)
"""What T5s have, and what results were written with before others had been thought of."""
