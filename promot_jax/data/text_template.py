"""The template of a user's own files: text with the names of columns in braces.

    {premise} question: {hypothesis} answer:

'{{' and '}}' are a brace each; every other brace must be one of a pair around the name of a column.  No
more can be said in it: neither attributes nor formats, since a template may come from somebody else.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

from promot_jax.errors import ConfigError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTemplate:
  """Text with columns to fill in.

  name: whose it is, for messages: 'TEMPLATE'.

  Raises:
    ConfigError: a brace is alone, or nothing is between two.
  """

  text: str
  name: str = "TEMPLATE"

  def __post_init__(self):
    self.columns  # noqa: B018  (refuses what is no template)

  @functools.cached_property
  def _parts(self) -> tuple[tuple[bool, str], ...]:
    """(whether it is a column, its name or the text) in their order."""
    if not isinstance(self.text, str):
      raise ConfigError(f"{self.name}={self.text!r} is no text, such as '{{premise}} answer:'.")
    parts = []
    for found in _PART.finditer(self.text):
      piece = found.group()
      # Braces may have blanks inside: '{ premise }'.
      if found.group(1) is not None:
        column = found.group(1).strip()
        if not column:
          raise ConfigError(self._wrong(found.start(), "names no column between '{' and '}'"))
        parts.append((True, column))
      elif piece in "{}":
        raise ConfigError(self._wrong(found.start(), f"has a {piece!r} alone"))
      else:
        parts.append((False, {"{{": "{", "}}": "}"}.get(piece, piece)))
    return tuple(parts)

  def _wrong(self, place: int, problem: str) -> str:
    return (
      f"{self.name}={self.text!r} {problem} at character {place + 1}; a column is written {{name}}, a"
      " brace that is text twice: '{{' or '}}'."
    )

  @functools.cached_property
  def columns(self) -> tuple[str, ...]:
    """The names in it, each once, in the order they first occur."""
    return tuple(dict.fromkeys(text for is_column, text in self._parts if is_column))

  @property
  def only_column(self) -> str | None:
    """The column that is all of it, as in '{label}'; None where there is more, or less."""
    (is_column, text), *rest = self._parts or ((False, ""),)
    return text if is_column and not rest else None

  def fill(self, values: Mapping[str, str]) -> str:
    """The text for one row; what a value holds is never read as a template."""
    return "".join(values[text] if is_column else text for is_column, text in self._parts)

  def __str__(self) -> str:
    return f"{self.name}={self.text!r}"
