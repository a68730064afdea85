"""What templates of strangers may call, each within a budget of steps, time and chance (`sandbox`).

Every text that grows, every list that is gone through and every piece that is written spends steps; a
template that has none left is stopped.
"""

import contextvars
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jinja2
from jinja2 import filters as library_filters
from jinja2.utils import Namespace

_STEPS = 2**22  # characters that are made, and passes of loops, each `_PASS`
_PASS = 64
_SECONDS = 5.0


class TooMuch(Exception):
  """A template has used up what it may do for one record."""


class _Budget:
  """What is left, and the source of random choices."""

  def __init__(self, seed: int):
    self.left = _STEPS
    # Time of this thread: others may hold the processor, and that is no fault of the template.
    self.until = time.thread_time() + _SECONDS
    self.random = random.Random(seed)


# Of the context, so that threads that render at once do not spend each other's.
_budget: contextvars.ContextVar[_Budget] = contextvars.ContextVar("budget")


@contextmanager
def budget(seed: int = 0) -> Iterator[None]:
  """What is done within is counted anew, and draws from this seed."""
  # A budget within a budget begins anew, and the outer one goes on behind it.
  token = _budget.set(_Budget(seed))
  try:
    yield
  finally:
    _budget.reset(token)


def spend(steps: int) -> None:
  """Counts.

  Raises:
    TooMuch: nothing is left.
  """
  own = _budget.get()
  own.left -= steps
  # Steps and time: one operation may be slow without making anything.
  if own.left < 0 or time.thread_time() > own.until:
    raise TooMuch(f"it makes too much text or loops too often (more than {_STEPS:,} steps)")


def _size(value: Any, depth: int = 0) -> int:
  """About how many characters a value is in print."""
  # Numbers are of about this length, and bounded where they are computed.
  if isinstance(value, str):
    return len(value)
  if value is None or isinstance(value, bool | int | float):
    return 8
  # Nested lists can be built in a loop without end, and only plain values have a text.
  if depth > 8 or not isinstance(value, list | tuple | Mapping):
    raise TypeError(f"it shows a {type(value).__name__}, which is no text")
  items = value.items() if isinstance(value, Mapping) else value
  total = 2
  for item in items:
    total += 4 + _size(item, depth + 1)
    if total > _STEPS:
      break
  return total


def counted(value: Any) -> Any:
  """The value, its size spent."""
  spend(_size(value))
  return value


def shown(value: Any) -> Any:
  """A value as it is written.

  Raises:
    ValueError: it is missing: "None" is never meant.
  """
  # Undefined values raise when they are made text, with a message that names them.
  if isinstance(value, jinja2.Undefined):
    return str(value)  # raises, with its name
  if value is None:
    raise ValueError("it shows a value that is missing (null)")
  return value if isinstance(value, str) else str(counted(value))


def _texts(value: Any) -> str:
  return str(shown(value))


def _items(value: Any) -> list[Any]:
  if isinstance(value, jinja2.Undefined):
    str(value)  # raises, with its name
  if not isinstance(value, str | list | tuple | range | Mapping):
    raise TypeError(f"it needs a list and has a {type(value).__name__}")
  # Before the copy is made.
  spend(len(value))
  return list(value)


def passes(value: Any) -> list[Any]:
  """What a loop goes through, each pass counted."""
  found = _items(value)
  # A pass costs more than a character: each may hold any number of cheap expressions.
  spend(len(found) * _PASS)
  return found


def replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
  """`str.replace`, counted before it is done."""
  text, old, new = _texts(text), _texts(old), _texts(new)
  # How much longer it will be is known before it is made.
  found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
  spend(len(text) + found * len(new))
  return text.replace(old, new, found)


def join(items: Any, between: Any = "", attribute: Any = None) -> str:
  """`str.join` of anything that can be shown."""
  if attribute is not None:
    # The library's own would read any attribute of the items.
    raise TypeError("join has no attribute here; use map(attribute=...) before it")
  between, texts = _texts(between), [_texts(item) for item in _items(items)]
  spend(sum(map(len, texts)) + len(between) * len(texts))
  return between.join(texts)


@jinja2.pass_context  # never while a template is compiled: every record draws
def _choice(context: Any, items: Any) -> Any:
  del context
  found = _items(items)
  if not found:
    raise ValueError("it chooses from an empty list")
  return _budget.get().random.choice(found)


def _most_frequent(items: Any) -> list[Any]:
  counts = Counter(map(_texts, _items(items)))
  most = max(counts.values(), default=0)
  return [item for item, count in counts.items() if count == most]


def _round(value: Any, precision: int = 0) -> float:
  # More digits than these a number in a text does not have.
  return round(float(value), min(max(int(precision), 0), 12))


def _number(kind: Callable[[Any], Any]) -> Callable[..., Any]:
  def converted(value: Any, default: Any = 0) -> Any:
    try:
      # Python's `int` takes quadratic time for digits.
      return kind(value[:40] if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
      return default

  return converted


def _of_text(method: Callable[[str], Any]) -> Callable[[Any], Any]:
  return lambda value: counted(method(_texts(value)))


def _listed(name: str) -> Callable[..., list[Any]]:
  """One of the library's filters of lists, its result counted."""

  @jinja2.pass_context
  def found(context: Any, items: Any, *args: Any, **kwargs: Any) -> list[Any]:
    # The library's filters are lazy, and are counted as a list.
    return _items(list(library_filters.FILTERS[name](context, _items(items), *args, **kwargs)))

  return found


def _default(value: Any, default: Any = "", boolean: bool = False) -> Any:
  # null counts as missing, which Jinja's own filter does not take it for.
  missing = value is None or isinstance(value, jinja2.Undefined) or (boolean and not value)
  return default if missing else value


RANDOM = ("choice", "random")
"""Names of the filters that draw."""

FILTERS: Mapping[str, Callable[..., Any]] = {
  **dict.fromkeys(RANDOM, _choice),
  "most_frequent": _most_frequent,
  "capitalize": _of_text(str.capitalize),
  "lower": _of_text(str.lower),
  "upper": _of_text(str.upper),
  "title": _of_text(str.title),
  "trim": _of_text(str.strip),
  "string": _of_text(str),
  "wordcount": _of_text(lambda text: len(text.split())),
  "replace": replace,
  "join": join,
  "first": lambda items: _items(items)[0],
  "last": lambda items: _items(items)[-1],
  "length": lambda items: len(_items(items)),
  "count": lambda items: len(_items(items)),
  "list": _items,
  "sort": lambda items, reverse=False: sorted(_items(items), reverse=bool(reverse)),
  "reverse": lambda items: _items(items)[::-1],
  "unique": lambda items: list(dict.fromkeys(_items(items))),
  "min": lambda items: min(_items(items)),
  "max": lambda items: max(_items(items)),
  "map": _listed("map"),
  "select": _listed("select"),
  "reject": _listed("reject"),
  "int": _number(int),
  "float": _number(float),
  "abs": abs,
  "round": _round,
  "default": _default,
  "d": _default,
}


def _range(*limits: int) -> list[int]:
  # Counted first: a range is small, its list is not.
  numbers = range(*limits)
  spend(len(numbers))
  return list(numbers)


GLOBALS: Mapping[str, Callable[..., Any]] = {"range": _range, "namespace": Namespace}
