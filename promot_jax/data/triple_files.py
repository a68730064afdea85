"""Facts as triples with texts that say them: the XML files of WebNLG 2017 and DART.

An entry has triples 'subject | property | object' and several texts.  XML is read by defusedxml: a file
that defines entities, or refers to others, is refused, since a few lines of it can fill all memory.
"""

import dataclasses
import xml.sax
from collections.abc import Iterator
from typing import Any

from promot_jax.data.original_files import Files, Row
from promot_jax.errors import ConfigError, DataError


@dataclasses.dataclass(kw_only=True)
class Entry:
  """One entry of a file.

  triples: 'subject | property | object' each.
  texts: (comment, text) of each; the comment says 'good', or where the text is from.
  """

  line: int
  category: str
  triples: list[str] = dataclasses.field(default_factory=list)
  texts: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def entries(files: Files) -> Iterator[Row]:
  """The entries of XML files, in the order of the files' names."""
  for paths in files:
    for path in paths:
      for entry in _read(path):
        yield f"{path}:{entry.line}", entry


def triples(entry: Entry) -> list[str]:
  """Its triples, each of three parts.

  Raises:
    DataError: it has none, or one of other parts.
  """
  for text in entry.triples:
    if len(text.split(" | ")) != 3:
      raise DataError(f"triple {text!r} is not 'subject | property | object'.")
  if not entry.triples:
    raise DataError("the entry has no triples.")
  return entry.triples


def _read(path: str) -> list[Entry]:
  import defusedxml
  import defusedxml.sax

  handler = _Entries()
  try:
    with open(path, "rb") as file:
      # No document type at all: entities are defined there.
      defusedxml.sax.parse(file, handler, forbid_dtd=True)
  except OSError as error:
    raise ConfigError(f"{path} cannot be read: {error.strerror}. Name another file.") from None
  except defusedxml.DefusedXmlException as error:
    raise DataError(
      f"{path}:{handler.line} defines a document type or entities ({type(error).__name__}), with which a"
      " small file can fill all memory; the data set's own files have none. Fetch it again."
    ) from None
  except xml.sax.SAXParseException as error:
    raise DataError(f"{path}:{error.getLineNumber()} is no XML: {error.getMessage()}.") from None
  if not handler.found:
    raise DataError(f"{path} has no <entry>. Is it a file of that data set?")
  return handler.found


class _Entries(xml.sax.ContentHandler):
  """Collects entries with the lines in which they begin."""

  def __init__(self):
    super().__init__()
    self.found: list[Entry] = []
    self._text: list[str] = []
    self._comment = ""

  @property
  def line(self) -> int:
    """Where the reader is."""
    return self._locator.getLineNumber() or 1 if self._locator is not None else 1

  def startElement(self, name: str, attrs: Any) -> None:
    # Text of an element only, not what stood before it.
    self._text = []
    if name == "entry":
      self.found.append(Entry(line=self.line, category=attrs.get("category", "")))
    elif name == "lex":
      self._comment = attrs.get("comment", "")

  def characters(self, content: str) -> None:
    # The parser gives a text in several pieces where it has to.
    self._text.append(content)

  def endElement(self, name: str) -> None:
    text = "".join(self._text).strip()
    # WebNLG's triples as they were mended; those of the source are not read.
    if name == "mtriple" and self.found:
      self.found[-1].triples.append(text)
    elif name == "lex" and self.found:
      self.found[-1].texts.append((self._comment, text))
