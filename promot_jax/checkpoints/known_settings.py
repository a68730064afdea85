"""Settings of a foreign configuration file: every one is known, or it is refused.

A file of PEFT or transformers may hold a setting that changes what is computed and that a reader has
never heard of: it came with a later version, or nobody thought of it.  Ignoring it gives other
outputs without a word.  So a reader lists what it understands, and anything else must have a value
that switches nothing on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from promot_jax import errors

INERT: tuple[Any, ...] = (None, False, "", [], {})
"""Values with which a setting that is not known switches nothing on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Only:
  """A setting that is understood with some values only.

  values: those, the first one the usual one.
  otherwise: what another value changes and what to do: the rest of the sentence that begins with
    'FILE has NAME=VALUE, '.
  """

  values: tuple[Any, ...]
  otherwise: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
  """The settings of one kind of file.

  used: names that the reader uses, or checks by itself.
  informative: names that change nothing of what the network computes.
  only: name -> the values that are understood.
  unknown: what to do about any other name: the end of a sentence.
  """

  used: frozenset[str]
  informative: frozenset[str]
  only: Mapping[str, Only]
  unknown: str

  @property
  def names(self) -> frozenset[str]:
    """All of them."""
    return self.used | self.informative | frozenset(self.only)


def require_known(content: Mapping[str, Any], known: Known, *, where: str) -> None:
  """Refuses a file with a setting that changes what is computed and is not understood.

  Args:
    content: the file, a JSON object.
    known: what is understood of it.
    where: names the file, for the message.

  Raises:
    ConfigError: one sentence with the setting, its value, what it changes and what to do.
  """
  # These first: their sentence says what the value changes, not only that it is unknown.
  for name, rule in known.only.items():
    if name in content and not _among(content[name], rule.values):
      raise errors.ConfigError(f"{where} has {name}={text(content[name])}, {rule.otherwise}.")
  for name, value in content.items():
    # A default of a newer version switches nothing on, and so it is no reason to refuse.
    if name not in known.names and not _among(value, INERT):
      raise errors.ConfigError(
        f"{where} has {name}={text(value)}, a setting that is not known here and may change what is"
        f" computed; {known.unknown}."
      )


def _among(value: Any, values: tuple[Any, ...]) -> bool:
  """Whether it is one of them, and of its kind: 0 is a number and not False, 1 is not True."""
  # In Python 0 == False and 1 == True, and in a configuration they mean different things.
  return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def text(value: Any) -> str:
  """A setting's value, for a message."""
  # The settings of a quantization fill a screen, and the message is one sentence.
  shown = repr(value)
  return shown if len(shown) <= 80 else f"{shown[:77]}..."
