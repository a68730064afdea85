"""Jinja templates of strangers: text from the values of a record, and nothing else.

The library's sandbox keeps a template from Python's inside; what is left is narrowed further, because a
template may also be slow, or write without end.  A template here may branch, loop, set names, index, and
use the filters, tests and methods below.  It has no files (no include, import, extends), defines nothing
(no macro, block), and every loop, every text that grows and every piece that is written is counted:
a record on which too much is spent is refused (`template_filters`).  What a template draws at random
(`choice`) is drawn from a seed that the caller gives, so that a record has the same text in every process.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes, runtime, sandbox, visitor
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

from promot_jax.data import template_filters
from promot_jax.errors import DataError

SEPARATOR = "|||"
"""Divides what a template writes; only where it stands in the template itself, never in a value."""
_DIVIDER = "\0|||\0"  # what it is while a template is filled in

_LONGEST = 2**16  # characters of a template
_DEEPEST = 60  # expressions within expressions
_OVERRUNS = 8  # records that a template may do too much for; after them it is not tried again
_LARGEST = 2**63

# A list of what is allowed: what a later Jinja adds is refused until somebody has looked at it.
_NODES = (
  *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
  *(nodes.Name, nodes.NSRef, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
  *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Keyword, nodes.Filter, nodes.Test),
  *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat),
  *(nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
_OPERATORS = frozenset({"+", "-", "*", "/", "//", "%"})
_TESTS = (
  *(
    "defined",
    "undefined",
    "none",
    "string",
    "number",
    "mapping",
    "sequence",
    "iterable",
    "boolean",
  ),
  *("integer", "float", "true", "false", "odd", "even", "divisibleby", "in", "equalto", "eq", "=="),
  *("ne", "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">=", "lower", "upper"),
)
# None of them makes a text longer than what it is given, but `replace` and `join`, which are counted.
_METHODS: Mapping[type, frozenset[str]] = {
  str: frozenset(
    (
      *(
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isdigit",
      ),
      *(
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
      ),
      *(
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
      ),
      *("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
    )
  ),
  dict: frozenset({"get", "items", "keys", "values"}),
  list: frozenset({"count", "index"}),
  tuple: frozenset({"count", "index"}),
}
_CALLED = frozenset().union(*_METHODS.values())
_LOOP = frozenset(
  (
    *("index", "index0", "revindex", "revindex0", "first", "last", "length"),
    *("depth", "previtem", "nextitem"),
  )
)
# Everything that the library, its sandbox and plain values raise in a template.
_FAILURES = (
  *(jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
  *(RecursionError, MemoryError, SyntaxError),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
  """One template.

  text: in Jinja's language.
  where: file and name, for messages.

  Raises:
    DataError: it is none, or asks for something that templates here do not have.
  """

  text: str
  where: str

  def __post_init__(self):
    self._compiled  # noqa: B018  (refuses what is no template)

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """The values that it reads, in alphabetical order."""
    return self._compiled[1]

  @functools.cached_property
  def divides(self) -> bool:
    """Whether `SEPARATOR` stands in it."""
    return self._compiled[2]

  @functools.cached_property
  def draws(self) -> bool:
    """Whether it chooses at random, so that what it writes depends on the seed."""
    return self._compiled[3]

  def parts(self, values: Mapping[str, Any], *, seed: int = 0) -> tuple[str, ...]:
    """What it writes, divided at `SEPARATOR`; blanks and line ends around each part are left out.

    Args:
      values: texts, numbers, truth values, lists and dictionaries of them.
      seed: of its random choices.

    Raises:
      DataError: it cannot be filled in, or does more than it may.
    """
    written: list[str] = []
    # One that overran so often would stop a data set for hours, five seconds a record.
    if len(self._overruns) >= _OVERRUNS:
      raise DataError(self._overruns[-1])
    try:
      with template_filters.budget(seed):
        # Piece by piece: a template that writes without end is stopped while it writes.
        for piece in self._compiled[0].generate(**values):
          template_filters.spend(len(piece))
          written.append(piece)
    except template_filters.TooMuch as error:
      self._overruns.append(f"{self.where}: {error}.")
      raise DataError(self._overruns[-1]) from None
    except _FAILURES as error:
      raise DataError(f"{self.where}: {_said(error)}") from None
    # Divided after it is filled in: a value that holds the separator's text stays whole.
    return tuple(part.strip() for part in "".join(written).split(_DIVIDER))

  @functools.cached_property
  def _overruns(self) -> list[str]:
    """Messages of records for which it did too much."""
    return []

  @functools.cached_property
  def _compiled(self) -> tuple[jinja2.Template, tuple[str, ...], bool, bool]:
    if len(self.text) > _LONGEST:
      raise DataError(
        f"{self.where} has {len(self.text):,} characters; a template has at most {_LONGEST:,}."
      )
    try:
      with template_filters.budget():  # constants are computed here
        tree = _environment.parse(self.text)
        # Before anything of it is compiled or run.
        _check(tree, 0)
        names = meta.find_undeclared_variables(tree) - set(_environment.globals)
        draws = any(each.name in template_filters.RANDOM for each in tree.find_all(nodes.Filter))
        guarded = _Guard()
        tree = guarded.visit(tree)
        return _environment.from_string(tree), tuple(sorted(names)), guarded.divides, draws
    except template_filters.TooMuch as error:
      raise DataError(f"{self.where}: {error}.") from None
    except _FAILURES as error:
      line = getattr(error, "lineno", None)
      place = f", line {line} of its text" if line else ""
      raise DataError(f"{self.where} is no template{place}: {_said(error)}") from None


def _said(error: BaseException) -> str:
  if isinstance(error, RecursionError):
    return "it is nested too deeply."
  first = (str(error).strip() or type(error).__name__).splitlines()[0]
  return first.rstrip(".") + "."


def _check(node: nodes.Node, depth: int) -> None:
  """Raises SecurityError where a node is none of what a template may have."""
  # Before Python's own limit, which the library's compiler would meet.
  if depth > _DEEPEST:
    raise RecursionError
  if not isinstance(node, _NODES):
    raise _refused(node, f"'{type(node).__name__.lower()}' is not for templates here")
  if isinstance(node, nodes.For) and node.recursive:
    raise _refused(node, "a loop that calls itself is not for templates here")
  if isinstance(node, nodes.Filter) and node.name not in template_filters.FILTERS:
    raise _refused(
      node, f"there is no filter '{node.name}'; there are {', '.join(template_filters.FILTERS)}"
    )
  if isinstance(node, nodes.Test) and node.name not in _TESTS:
    raise _refused(node, f"there is no test '{node.name}'; there are {', '.join(_TESTS)}")
  # Methods are known by name only here; `call` looks at the object as well.
  if isinstance(node, nodes.Call):
    called = node.node
    known = isinstance(called, nodes.Name) and called.name in template_filters.GLOBALS
    if not known and not (isinstance(called, nodes.Getattr) and called.attr in _CALLED):
      raise _refused(
        node,
        "it calls something else than range, namespace, or a method of texts, lists or dictionaries",
      )
  if isinstance(node, nodes.Name | nodes.NSRef) and node.name.startswith("_"):
    raise _refused(node, f"the name '{node.name}' begins with '_'")
  for child in node.iter_child_nodes():
    _check(child, depth + 1)


def _refused(node: nodes.Node, what: str) -> SecurityError:
  error = SecurityError(what)
  # As Jinja's own errors have it.
  error.lineno = node.lineno
  return error


class _Guard(visitor.NodeTransformer):
  """Makes loops and joined texts count, and the separator one that no value can hold."""

  divides = False

  def visit_For(self, node: nodes.For) -> nodes.Node:
    self.generic_visit(node)
    node.iter = _filtered(node.iter, "_passes")
    return node

  def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
    self.generic_visit(node)
    # `~` joins texts without the operators that are looked at.
    return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

  def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
    node.data = self._divided(node.data)
    return node

  def visit_Const(self, node: nodes.Const) -> nodes.Node:
    if isinstance(node.value, str):
      node.value = self._divided(node.value)
    return node

  def _divided(self, text: str) -> str:
    self.divides = self.divides or SEPARATOR in text
    return text.replace(SEPARATOR, _DIVIDER)


def _filtered(node: Any, name: str) -> nodes.Filter:
  return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Environment(sandbox.ImmutableSandboxedEnvironment):
  """Jinja's sandbox, in which only plain values have attributes, and only the listed ones."""

  intercepted_binops = _OPERATORS

  def getattr(self, obj: Any, attribute: str) -> Any:
    # Undefined values raise when they are made text.
    if isinstance(obj, jinja2.Undefined):
      str(obj)  # raises, with its name
    # A field of that name before a method: records have fields called 'items' and 'count'.
    if isinstance(obj, Mapping) and attribute in obj:
      return obj[attribute]
    if attribute in _METHODS.get(type(obj), ()):
      return getattr(obj, attribute)
    # The loop's own variables, without `changed` and `cycle`, which keep what they are given.
    if isinstance(obj, runtime.LoopContext) and attribute in _LOOP:
      return getattr(obj, attribute)
    if isinstance(obj, Namespace) and not attribute.startswith("_"):
      return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
    return self.undefined(obj=obj, name=attribute)

  def getitem(self, obj: Any, argument: Any) -> Any:
    if isinstance(obj, jinja2.Undefined):
      str(obj)
    if isinstance(obj, Mapping):
      return obj[argument] if argument in obj else self.undefined(obj=obj, name=argument)
    if isinstance(obj, str | list | tuple) and isinstance(argument, int | slice):
      # As in Python, but what is behind the end is undefined and no error.
      try:
        return obj[argument]
      except IndexError:
        pass
    return self.undefined(obj=obj, name=argument)

  def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of a plain value, or one of `template_filters.GLOBALS`."""
    for scope in ("_loop_vars", "_block_vars"):  # added by Jinja where a call stands in a loop
      kwargs.pop(scope, None)
    if any(obj is known for known in template_filters.GLOBALS.values()):
      return obj(*args, **kwargs)
    # The object and the name: a method of anything else is refused whatever it is called.
    owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
    if name not in _METHODS.get(type(owner), ()) or kwargs:
      raise SecurityError("it calls something that is no method of a text, list or dictionary")
    if name == "replace":
      return template_filters.replace(owner, *args)
    if name == "join":
      return template_filters.join(args[0], owner)
    found = obj(*args)
    return list(found) if name in ("items", "keys", "values") else template_filters.counted(found)

  def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
    """Arithmetic of numbers, and texts and lists put together."""
    texts = (str, list, tuple)
    # 'ab' * 3 and 3 * 'ab' alike.
    if operator == "*" and isinstance(left, int) and isinstance(right, str):
      left, right = right, left
    if operator == "*" and isinstance(left, str) and isinstance(right, int):
      template_filters.spend(len(left) * max(0, right))
    elif isinstance(left, texts) or isinstance(right, texts):
      # `%` formats, and any other operator of texts is a mistake.
      if operator != "+" or type(left) is not type(right):
        kinds = f"{type(left).__name__} {operator} {type(right).__name__}"
        raise SecurityError(f"it computes {kinds}, which templates here do not")
      # Before it is made.
      template_filters.spend(len(left) + len(right))
    found = self.binop_table[operator](left, right)
    # Numbers multiplied in a loop grow without being any text.
    if isinstance(found, int) and abs(found) > _LARGEST:
      raise SecurityError("it computes a number that is too large")
    return found


def _make_environment() -> _Environment:
  # StrictUndefined: a field that a record lacks must not become nothing. Not optimized: constants
  # would be joined before they are counted.
  made = _Environment(
    undefined=jinja2.StrictUndefined, finalize=template_filters.shown, optimized=False
  )
  made.filters = {**template_filters.FILTERS, "_passes": template_filters.passes}
  made.tests = {name: made.tests[name] for name in _TESTS}
  made.globals = dict(template_filters.GLOBALS)
  return made


_environment = _make_environment()
