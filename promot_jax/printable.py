"""Text of users, shown safely: nothing invisible, nothing that moves a cursor or turns a line around.

Names of tasks and runs, model outputs and paths may hold anything.  A terminal obeys escape sequences,
and a reader is misled by direction overrides and zero-width characters, in HTML and Markdown too.
"""

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them; they hide nothing
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"\\]+")
# `container@account` names a place in abfs://; of the web, whatever stands there lets somebody in.
_USER = re.compile(r"(?<=://)(?:[^/?#:]*:[^/?#]*|(?<=http://)[^/?#]+|(?<=https://)[^/?#]+)@")
_SECRET = re.compile(
  r"([?&;#](?:[\w.~-]*(?:token|key|secret|signature|password|passwd|pwd|credential|auth)|(?:[\w.~-]*[._-])?sig)=)"
  r"[^&;#]*",
  re.IGNORECASE,
)


def visible(text: str, *, kept: str = "") -> str:
  """The text with every control, format or surrogate character as its number: `⟨U+202E⟩`.

  Args:
    kept: control characters to leave as they are, such as a new line.
  """
  # Nearly every text, without a look at each character.
  if text.isascii() and text.isprintable():
    return text
  return "".join(
    f"⟨U+{ord(character):04X}⟩"
    if unicodedata.category(character) in _UNSEEN and character not in kept + _JOINERS
    else character
    for character in text
  )


def without_secrets(text: str) -> str:
  """The text with `***` for what lets somebody in through a URL: passwords, keys, tokens, signatures.

  For records, which are kept, copied and published.  A configuration that is read again keeps its URLs.
  """
  return _URL.sub(lambda url: _SECRET.sub(r"\1***", _USER.sub("***@", url[0])), text)
