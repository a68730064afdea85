"""Names and texts of users in Markdown, HTML, LaTeX and CSV, where they must stay text.

Each function makes invisible characters visible first (`promot_jax.printable`).
"""

import html as standard_html
import re
from typing import Any

from promot_jax.printable import visible

_MARKS = re.compile(r"([\\`*_{}\[\]|~$#])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LATEX = str.maketrans(
  {
    **{mark: f"\\{mark}" for mark in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"\textpm{}",
    "†": r"\textdagger{}",
    "…": r"\dots{}",
    # At the start of a row a bracket or a star would be an argument of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # Behind a question mark it makes a Spanish one.
    "`": r"\textasciigrave{}",
  }
)
_LIGATURE = re.compile(r"([-,'])(?=\1)")  # two of them are another sign: a dash, a quotation mark
_BARE_ADDRESS = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=www)\.")
_LINE_START = re.compile(r"^(?:([-+=!])|(\d{1,9})([.)]))")
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms


def markdown(value: object) -> str:
  """One line of text that cannot start a heading, list, table cell, code span, tag or link.

  Addresses, which GitHub links by themselves, stay text as well.
  """
  # One line first: a line break would end the list item or the row that it stands in.
  text = visible(" ".join(str(value).split()))
  text = _MARKS.sub(r"\\\1", text.translate(_ENTITIES))
  text = _BARE_ADDRESS.sub(lambda found: f"&#{ord(found[0])};", text)
  return _LINE_START.sub(
    lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", text
  )


def latex(value: object) -> str:
  """One paragraph of text without commands, comments, formulas, alignment marks and ligatures."""
  # One line first: an empty one would end a row's paragraph.
  return _LIGATURE.sub(r"\1{}", visible(" ".join(str(value).split())).translate(_LATEX))


def html(value: object) -> str:
  """Text for an element or a quoted attribute; line breaks and tabs stay."""
  return standard_html.escape(visible(str(value), kept="\n\t"), quote=True)


def spreadsheet(value: Any) -> Any:
  """A CSV value: text that a spreadsheet would run as a formula gets a leading apostrophe.

  Numbers, also written ones such as `-3.2`, and empty cells stay as they are.
  """
  if not isinstance(value, str):
    return value
  shown = visible(value, kept="\n\t")
  return "'" + shown if value.startswith(_FORMULA) and not _is_number(value) else shown


def _is_number(value: str) -> bool:
  try:
    float(value)
  except ValueError:
    return False
  return True
