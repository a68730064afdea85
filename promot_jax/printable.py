"""Text of users, shown safely: nothing invisible, nothing that moves a cursor or turns a line around.

Names of tasks and runs, model outputs and paths may hold anything.  A terminal obeys escape sequences,
and a reader is misled by direction overrides and zero-width characters, in HTML and Markdown too.
"""

import unicodedata

_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them; they hide nothing
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str, *, kept: str = "") -> str:
  """The text with every control, format or surrogate character as its number: `⟨U+202E⟩`.

  Args:
    kept: control characters to leave as they are, such as a new line.
  """
  if text.isascii() and text.isprintable():
    return text
  return "".join(
    f"⟨U+{ord(character):04X}⟩"
    if unicodedata.category(character) in _UNSEEN and character not in kept + _JOINERS
    else character
    for character in text
  )
