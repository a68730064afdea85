"""Checks of the settings that methods have in common, so that all say the same of a mistake."""

import numbers
from typing import Any

from promot_jax import errors, limits


class Settings:
  """A value in the settings of a method, which method files describe with it."""


def require_counts(settings: Any, *names: str, optional: tuple[str, ...] = ()) -> None:
  """Checks that fields are whole numbers of at least 1.

  Args:
    settings: a method, or a part of one.
    names: of its fields.
    optional: names of those that may be None too.

  Raises:
    ConfigError: one of them is something else.
  """
  for name in (*names, *optional):
    value = getattr(settings, name)
    if value is None and name in optional:
      continue
    # A bool is an integer to Python, and True as a length is a slip of the pen.
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
      raise errors.ConfigError(
        f"{type(settings).__name__}.{name} is {value!r}; it must be a whole number, at least 1."
      )


def require_numbers(
  settings: Any, *names: str, least: float | None = None, above: float | None = None
) -> None:
  """Checks that fields are finite numbers, as NaN would show first in the loss.

  Args:
    settings: a method, or a part of one.
    names: of its fields.
    least: smallest value.
    above: value that is too small.

  Raises:
    ConfigError: one of them is something else.
  """
  values = {name: getattr(settings, name) for name in names}
  limits.require(type(settings).__name__, least=least, above=above, **values)


def require_rate(settings: Any, name: str) -> None:
  """Checks that a field is a share of what is dropped.

  Raises:
    ConfigError: it is no number, below 0, or not below 1.
  """
  limits.require(type(settings).__name__, least=0, below=1, **{name: getattr(settings, name)})


def set_tuple(settings: Any, name: str) -> None:
  """Makes a field of a frozen dataclass a tuple; a single string is one element."""
  value = getattr(settings, name)
  object.__setattr__(settings, name, (value,) if isinstance(value, str) else tuple(value))
