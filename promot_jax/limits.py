"""Checks of the numbers that methods, optimizers, schedules and objectives are given.

NaN and infinity are refused everywhere: they would show as a loss that diverges, with nothing that
points to the setting.
"""

import numbers
import sys
from typing import Any

from promot_jax import errors


def require(
  owner: str,
  *,
  least: float | None = None,
  above: float | None = None,
  below: float | None = None,
  most: float | None = None,
  optional: bool = False,
  **values: Any,
) -> None:
  """Checks that settings are finite numbers within limits.

  Args:
    owner: what has the settings, for the message ('adafactor').
    least: smallest value.
    above: value that is too small.
    below: value that is too large.
    most: largest value.
    optional: whether None is a value too.
    values: the settings by name.

  Raises:
    ConfigError: names the first setting that is something else.
  """
  words = [
    f"{word} {limit:g}"
    for word, limit in (("at least", least), ("above", above), ("below", below), ("at most", most))
    if limit is not None
  ]
  for name, value in values.items():
    if value is None and optional:
      continue
    sound = (
      # A bool is a Real to Python, and True as a rate is a slip of the pen.
      isinstance(value, numbers.Real)
      and not isinstance(value, bool)
      # Not math.isfinite, which fails on an integer that no float can be.
      and abs(value) <= sys.float_info.max
      and (least is None or value >= least)
      and (above is None or value > above)
      and (below is None or value < below)
      and (most is None or value <= most)
    )
    if not sound:
      none = "None or " if optional else ""
      limits = f" {' and '.join(words)}" if words else ""
      raise errors.ConfigError(f"{owner}: {name}={value!r} must be {none}a finite number{limits}.")


def require_whole(owner: str, *, least: int, **values: Any) -> None:
  """Checks that settings are whole numbers of at least `least`; 1e4 counts as one.

  Raises:
    ConfigError: names the first setting that is something else.
  """
  require(owner, least=least, **values)
  for name, value in values.items():
    if value != int(value):
      raise errors.ConfigError(f"{owner}: {name}={value!r} must be a whole number.")
