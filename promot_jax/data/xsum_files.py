"""XSum's original files, and its divisions by the address of the article.

    xsum/XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json    numbers of the articles of each split
    xsum/bbc-summary-data/10000983.summary           one article
    xsum/XSum-WebArxiveUrls.txt                      addresses, where the articles' files have none

An address ends in the article's number: '.../news/uk-england-40673283' is section 'news', category
'uk-england'.  Li & Liang (2021) train on news and test on sport, or train on news of the world, of the UK
and of business and test on other news; they do not say of which split the test articles are: here they
are those of the test split.  Hewitt et al. (2021) take the latter three as in distribution, of the split
of each article, and as out of distribution a list of categories, of all splits.  Their list names parts of
the UK and of the world by their whole category, so that those are out, and whatever else begins with 'uk' or
'world' is in.
"""

import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax.data import layouts, text_lines
from promot_jax.data.original_files import Files, Layout, Row
from promot_jax.errors import DataError

SPLITS = ("train", "validation", "test")
SIZES = {"train": 204_045, "validation": 11_332, "test": 11_334}
_NUMBERS = "xsum/XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
_ARTICLES = "xsum/bbc-summary-data"
_ADDRESSES = "xsum/XSum-WebArxiveUrls.txt"

IN_DISTRIBUTION = ("uk", "business", "world")
OUT_OF_DISTRIBUTION = frozenset(
  [
    "entertainment",
    "election",
    "technology",
    "science",
    "health",
    "education",
    "explainers",
    "live",
    "uk-politics",
    "world-us-canada",
    "world-europe",
    "uk-england",
    "uk-scotland",
    "world-asia",
    "science-environment",
    "uk-scotland-scotland-politics",
    "disability",
  ]
)

# Words on the page's buttons, which the articles' files have as lines of text.
_BUTTONS = frozenset(
  [
    "share this with",
    "email",
    "facebook",
    "messenger",
    "twitter",
    "pinterest",
    "whatsapp",
    "linkedin",
    "copy this link",
    "these are external links and will open in a new window",
  ]
)
_PART = re.compile(r"\[SN\]([A-Z-]+)\[SN\]")
_ADDRESS = re.compile(r"bbc\.co(?:m|\.uk)/(?P<path>\S*?)/?$")

Keep = Callable[[str], bool]
"""Of an address: whether its article takes part."""


def whole() -> tuple[Layout, ...]:
  """The data set as it is; also of the form of one article a line, 'xsum/train.source' and '.target'."""
  lines = Layout(
    splits={
      split: (f"xsum/{name}.source", f"xsum/{name}.target")
      for split, name in {"train": "train", "validation": "val", "test": "test"}.items()
    },
    rows=layouts.of_parallel("document", "summary"),
    record=lambda row: {name: layouts.text(row, name) for name in ("document", "summary")},
  )
  # The files of single articles count where both forms are there.
  return (*(_layout(split, (split,), None) for split in SPLITS), lines)


def divided(**splits: tuple[Sequence[str], Keep]) -> tuple[Layout, ...]:
  """Splits by address.

  Args:
    splits: name -> the data set's splits that the articles are of, and which of them take part.
  """
  return tuple(
    _layout(name, parts, keep, *extra)
    for name, (parts, keep) in splits.items()
    for extra in ((_ADDRESSES,), ())  # with the list of addresses where there is one
  )


def is_news(address: str) -> bool:
  """An article of the section 'news'."""
  return _section(address)[0] == "news"


def is_sport(address: str) -> bool:
  """An article of the section 'sport'."""
  return _section(address)[0] == "sport"


def is_main_news(address: str) -> bool:
  """News of the world, of the UK or of business."""
  # 'uk-england' counts with 'uk'.
  return is_news(address) and _section(address)[1].partition("-")[0] in IN_DISTRIBUTION


def is_other_news(address: str) -> bool:
  """News of anything else."""
  return is_news(address) and not is_main_news(address)


def is_in_distribution(address: str) -> bool:
  """As Hewitt et al. divide."""
  return is_main_news(address) and not is_out_of_distribution(address)


def is_out_of_distribution(address: str) -> bool:
  """As Hewitt et al. divide."""
  return is_news(address) and _section(address)[1] in OUT_OF_DISTRIBUTION


def _layout(name: str, parts: Sequence[str], keep: Keep | None, *more: str) -> Layout:
  return Layout(
    splits={name: (_NUMBERS, _ARTICLES, *more)},
    rows=functools.partial(_rows, parts=parts, addressed=keep is not None),
    record=functools.partial(_record, keep=keep),
  )


def _section(address: str) -> tuple[str, str]:
  """('news', 'uk-england') of '.../news/uk-england-40673283'; the category may be empty.

  Raises:
    DataError: it is no address of the BBC.
  """
  found = _ADDRESS.search(address)
  if found is None:
    raise DataError(f"{address!r} is no address of a BBC article.")
  # '.../news/uk-england-40673283': the section, then the category with the number.
  first, *rest = found["path"].split("/")
  # All numbers at the end: what is left is the category, which may be empty.
  return first, re.sub(r"(?:(?:^|-)\d+)+$", "", rest[0]) if rest else ""


def _rows(files: Files, *, parts: Sequence[str], addressed: bool) -> Iterator[Row]:
  """The parts of every article's file by their names, and its address."""
  (numbers,), (folder,), *lists = files
  found = text_lines.json_value(text_lines.read_text(numbers), where=numbers)
  # The file of numbers is JSON of anybody's.
  if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in parts):
    raise DataError(f"{numbers} has no lists of article numbers for {', '.join(parts)}.")
  addresses = _addresses(lists[0][0]) if lists else {}
  for part in parts:
    for number in found[part]:
      # The last part only, for a number that is a path would lead out of the folder.
      path = pathlib.Path(folder) / f"{pathlib.PurePath(str(number)).name}.summary"
      # Counted as a record that cannot be used, with its number.
      if not path.is_file():
        yield f"{numbers}, article {number}", {}
        continue
      text = text_lines.read_text(path)
      # Before the first name stands nothing; names and parts take turns.
      named = _PART.split(text)[1:]
      row = dict(zip(named[::2], named[1::2]))
      if addressed:
        # The list first: it has addresses where the articles' files have none.
        row["address"] = addresses.get(str(number)) or row.get("URL", "").strip()
      yield str(path), row


def _addresses(path: str) -> dict[str, str]:
  """Article number -> address."""
  found = {}
  for line in text_lines.stream_lines(path):
    number = re.search(r"(\d+)/?\s*$", line.text)
    if number:
      found[number[1]] = line.text.strip()
    elif line.text.strip():
      raise DataError(f"{path}:{line.number} does not end in an article's number.")
  return found


def _record(row: Mapping[str, Any], *, keep: Keep | None) -> dict[str, str] | None:
  if not row:
    raise DataError(f"there is no file of it in {_ARTICLES}.")
  if keep is not None:
    if not row["address"]:
      raise DataError(
        f"the article has no address; put the list of addresses beside it, {_ADDRESSES}."
      )
    if not keep(row["address"]):
      return None
  # Under the file's names, for a message that the user can look up.
  return {
    "document": layouts.text({"RESTBODY": _without_buttons(row["RESTBODY"])}, "RESTBODY"),
    "summary": layouts.text({"FIRST-SENTENCE": row["FIRST-SENTENCE"].strip()}, "FIRST-SENTENCE"),
  }


def _without_buttons(text: str) -> str:
  """An article without the words on the page's buttons, as TensorFlow Datasets leaves them out."""
  lines = (line for line in text.strip().split("\n") if line.strip().lower() not in _BUTTONS)
  return "\n".join(lines).strip()
