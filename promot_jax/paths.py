"""One language for addressing parameters: freezing, restoring, sharding, decay and tables use it.

A parameter is addressed by its name, the path in the tree joined by '/', with list positions as
digits: 'encoder/layers/0/attention/query/kernel'.  A pattern is a regular expression that must
match a whole name; a leading '!' excludes what it matches.  A pattern that matches nothing is an
error everywhere, because it silently trains or restores nothing.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

from promot_jax import errors

Patterns = str | Sequence[str]


class PathError(errors.ConfigError):
  """A pattern or a set of names does not fit the parameters at hand."""


class PartitionRules(Protocol):
  """What `parameter_table` needs of partitioning rules."""

  def spec(self, name: str, shape: Sequence[int]) -> jax.sharding.PartitionSpec: ...


def named_leaves(tree: Any) -> dict[str, Any]:
  """Leaves of any pytree by name, in tree order.

  Takes an nnx.Module, an nnx.State, or any pytree with those inside (optimizer states, dicts).
  Variables are unwrapped, so the values are arrays (or whatever abstract values the tree holds).
  """
  flat, _ = _flatten(tree)
  return {name: _unwrap(leaf) for name, leaf in flat}


def replace_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
  """The tree with other leaves in the same places; the inverse of `named_leaves`.

  A Module gives a new Module, a State a new State; nothing is changed in place.

  Raises:
    PathError: the names differ from the tree's.
  """
  flat, treedef = _flatten(tree)
  names = [name for name, _ in flat]
  missing = [name for name in names if name not in leaves]
  extra = sorted(set(leaves) - set(names))
  if missing or extra:
    parts = []
    if missing:
      parts.append(f"{len(missing)} missing ({_some(missing)})")
    if extra:
      parts.append(f"{len(extra)} that the tree does not have ({_some(extra)})")
    raise PathError(f"The given leaves do not fit the tree: {' and '.join(parts)}.")
  # A variable keeps its kind, parameter or buffer, around the new value.
  values = [
    leaf.replace(leaves[name]) if isinstance(leaf, nnx.Variable) else leaves[name]
    for name, leaf in flat
  ]
  replaced = jax.tree_util.tree_unflatten(treedef, values)
  if isinstance(tree, nnx.Module):
    graphdef, _ = nnx.split(tree)
    return nnx.merge(graphdef, replaced)
  return replaced


def match(patterns: Patterns, names: Iterable[str]) -> list[str]:
  """Names selected by the patterns, in the order of `names`.

  The order of the patterns has no meaning: selected is what any plain pattern matches and no '!'
  pattern matches.  With '!' patterns only, everything else is selected.

  Raises:
    PathError: a pattern is not a regular expression, some pattern matches nothing, or nothing is
      left over.
  """
  names = list(names)
  # A string is a sequence, too: of patterns of one letter.
  patterns = [patterns] if isinstance(patterns, str) else list(patterns)
  if not patterns:
    raise PathError("No parameter pattern was given; '.*' selects every parameter.")
  included: set[str] = set()
  excluded: set[str] = set()
  for pattern in patterns:
    body = pattern[1:] if pattern.startswith("!") else pattern
    try:
      expression = re.compile(body)
    except re.error as error:
      raise PathError(f"Pattern '{pattern}' is not a regular expression: {error}.") from None
    # Of '!' patterns too: a misspelled one would silently train what it was to leave out.
    hits = {name for name in names if expression.fullmatch(name)}
    if not hits:
      raise PathError(
        f"Pattern '{pattern}' matches none of the {len(names)} parameters."
        f" The nearest names are: {', '.join(_nearest(body, names)) or 'none'}."
      )
    (excluded if pattern.startswith("!") else included).update(hits)
  if all(pattern.startswith("!") for pattern in patterns):
    included = set(names)
  selected = [name for name in names if name in included and name not in excluded]
  if not selected:
    raise PathError(f"Patterns {patterns} exclude everything that they include.")
  return selected


def parameter_names(tree: Any) -> list[str]:
  """Names of the leaves that can be trained, in tree order: all but a network's buffers.

  A buffer is any variable that is no nnx.Param, such as BART's bias of the logits.
  """
  flat, _ = _flatten(tree)
  return [name for name, leaf in flat if not _is_variable(leaf) or isinstance(leaf, nnx.Param)]


def selector(patterns: Patterns, model: Any) -> Callable[[tuple, Any], bool]:
  """A filter for `nnx.split` and `nnx.state` that is true for the selected parameters of `model`.

  Buffers are never selected.

  Raises:
    PathError: as `match`.
  """
  chosen = frozenset(match(patterns, parameter_names(model)))
  # As text: NNX has places in lists as integers.
  return lambda path, value: "/".join(str(key) for key in path) in chosen


def split(model: nnx.Module, patterns: Patterns) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """(graphdef, trainable, frozen): the parameters that the patterns select, and the others.

  The states share their arrays with the model, not their variables, so that an update of one is
  never seen by the other.

  Raises:
    PathError: as `match`.
  """
  graphdef, *states = nnx.split(model, selector(patterns, model), ...)
  trainable, frozen = map(_fresh, states)
  return graphdef, trainable, frozen


def merge(graphdef: nnx.GraphDef, *states: nnx.State) -> Any:
  """The model again from its graph definition and all of its states."""
  return nnx.merge(graphdef, *states)


def copy(model: Any) -> Any:
  """New module objects that share the arrays of `model`: editing one leaves the other alone."""
  graphdef, state = nnx.split(model)
  return nnx.merge(graphdef, _fresh(state))


def shapes_after(change: Callable[[Any], nnx.Module], model: nnx.Module) -> Any:
  """What a change makes of a model, as shapes: as `nnx.eval_shape`, and it tells what stays.

  Args:
    change: gives another model; must not change the given one.
    model: of shapes or arrays.  Leaves that the change hands on as they are, are the same objects in the
      result, so that `distinct` sees what two models share.
  """
  leaves = named_leaves(model)
  graphdef: Any = None

  def run(*arrays):
    nonlocal graphdef
    graphdef, state = nnx.split(change(replace_leaves(model, dict(zip(leaves, arrays)))))
    return state

  traced, state = jax.make_jaxpr(run, return_shape=True)(*leaves.values())
  given = dict(zip(map(id, traced.jaxpr.invars), leaves.values()))
  shapes, treedef = jax.tree.flatten(state)
  found = [given.get(id(out), shape) for out, shape in zip(traced.jaxpr.outvars, shapes)]
  return nnx.merge(graphdef, jax.tree.unflatten(treedef, found))


def distinct(tree: Any) -> dict[str, Any]:
  """The named leaves, each object once, by the first of its names; shapes as well as arrays."""
  found: dict[int, str] = {}
  leaves = named_leaves(tree)
  for name, leaf in leaves.items():
    found.setdefault(id(leaf), name)
  return {name: leaves[name] for name in found.values()}


def count(tree: Any) -> int:
  """Number of scalars in the tree; abstract leaves count too."""
  return sum(math.prod(leaf.shape) for leaf in named_leaves(tree).values())


def nbytes(tree: Any) -> int:
  """Bytes of all leaves of the tree, unsharded; abstract leaves count too."""
  leaves = named_leaves(tree).values()
  return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One line of the parameter table."""

  name: str
  shape: tuple[int, ...]
  dtype: str
  sharding: str
  trainable: bool


def parameter_table(
  model: Any, trainable: Patterns | None = None, rules: PartitionRules | None = None
) -> list[Row]:
  """What each parameter of a model (or of an abstract one) is and whether it is trained.

  Args:
    model: an nnx.Module or a state, of arrays or of abstract values.
    trainable: patterns of the trained parameters; None: none is trained.
    rules: partitioning rules to show; None: shows the sharding that the arrays have.

  Raises:
    PathError: as `match`.
  """
  leaves = named_leaves(model)
  chosen = set(match(trainable, parameter_names(model))) if trainable is not None else set()
  return [
    Row(
      name=name,
      shape=tuple(leaf.shape),
      dtype=str(np.dtype(leaf.dtype)),
      sharding=_sharding_text(name, leaf, rules),
      trainable=name in chosen,
    )
    for name, leaf in leaves.items()
  ]


def format_table(rows: Sequence[Row]) -> str:
  """The table as text: equal layers share a line ('layers/0..11'), totals by group at the end."""
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    # Layers that are alike in everything shown stand in one line.
    pattern = re.sub(r"(?<=/)\d+(?=/)", "*", row.name)
    groups.setdefault((pattern, row.shape, row.dtype, row.sharding, row.trainable), []).append(row)
  lines = [("parameter", "shape", "dtype", "sharding", "trained", "scalars")]
  for (pattern, shape, dtype, sharding, trained), members in groups.items():
    lines.append(
      (
        _common_name(pattern, [row.name for row in members]),
        "x".join(str(size) for size in shape) or "scalar",
        dtype,
        sharding,
        "yes" if trained else "no",
        f"{sum(math.prod(row.shape) for row in members):,}",
      )
    )
  widths = [max(len(line[column]) for line in lines) for column in range(6)]
  text = [
    "  ".join(
      cell.rjust(width) if column == 5 else cell.ljust(width)
      for column, (cell, width) in enumerate(zip(line, widths))
    ).rstrip()
    for line in lines
  ]
  text.insert(1, "-" * len(text[0]))
  return "\n".join([*text, "", *_totals(rows)])


def _totals(rows: Sequence[Row]) -> list[str]:
  total = sum(math.prod(row.shape) for row in rows)
  lines = []
  for word, wanted in (("trained", True), ("frozen", False)):
    by_group: dict[str, int] = {}
    for row in rows:
      if row.trainable == wanted:
        group = row.name.split("/", 1)[0]
        by_group[group] = by_group.get(group, 0) + math.prod(row.shape)
    scalars = sum(by_group.values())
    details = ", ".join(f"{group} {size:,}" for group, size in by_group.items())
    share = 100 * scalars / total if total else 0.0
    lines.append(
      f"{word}: {scalars:,} of {total:,} scalars ({share:.4g} %)" + f"; {details}" * bool(details)
    )
  return lines


def _flatten(tree: Any) -> tuple[list[tuple[str, Any]], Any]:
  """[(name, Variable or leaf)] and the tree definition with Variables as leaves."""
  if isinstance(tree, nnx.Module):
    tree = nnx.state(tree)
  # Variables stay whole: `replace_leaves` has to give back the same kinds of them.
  flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)
  named = [("/".join(_key_text(key) for key in path), leaf) for path, leaf in flat]
  return named, jax.tree_util.tree_structure(tree, is_leaf=_is_variable)


def _is_variable(node: Any) -> bool:
  return isinstance(node, nnx.Variable)


def _unwrap(leaf: Any) -> Any:
  return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _key_text(key: Any) -> str:
  # A step of a path is a key of a dictionary, an attribute or a place in a list.
  for attribute in ("key", "name", "idx"):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)


def _fresh(state: nnx.State) -> nnx.State:
  return jax.tree.map(lambda leaf: leaf, state)  # unflattening makes new Variables


def _sharding_text(name: str, leaf: Any, rules: PartitionRules | None) -> str:
  spec: jax.sharding.PartitionSpec | None
  if rules is not None:
    spec = rules.spec(name, tuple(leaf.shape))
  else:
    spec = getattr(getattr(leaf, "sharding", None), "spec", None)
    if spec is None:
      return "-"
  axes = [
    "-" if axis is None else "+".join([axis] if isinstance(axis, str) else axis) for axis in spec
  ]
  return ",".join(axes) if any(axis != "-" for axis in axes) else "replicated"


def _common_name(pattern: str, names: Sequence[str]) -> str:
  """'layers/*/kernel' with the range of each '*' filled in."""
  columns = [re.findall(r"(?<=/)\d+(?=/)", name) for name in names]
  parts = pattern.split("*")
  if len(parts) != len(columns[0]) + 1:  # the name itself has a star; show it as it is
    return names[0]
  text = parts[0]
  for values, part in zip(zip(*columns), parts[1:]):
    numbers = sorted({int(value) for value in values})
    if len(numbers) == 1:
      text += str(numbers[0])
    elif numbers == list(range(numbers[0], numbers[-1] + 1)):
      text += f"{numbers[0]}..{numbers[-1]}"
    else:
      text += "{" + ",".join(str(number) for number in numbers) + "}"
    text += part
  return text


def _some(names: Sequence[str], limit: int = 5) -> str:
  shown = ", ".join(names[:limit])
  return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _nearest(pattern: str, names: Sequence[str], limit: int = 4) -> list[str]:
  """Names that look most like the pattern's literal text; layers of a stack are shown once."""
  text = re.sub(r"\\d[+*]?|\[[^\]]*\][+*]?|\.[*+]|[\\^$()?*+|]", "", pattern)
  # Turned around twice, so that the first layer stands for the others.
  unique = list({re.sub(r"\d+", "0", name): name for name in reversed(names)}.values())[::-1]
  scored = sorted(unique, key=lambda name: -_similarity(text, name))
  return scored[:limit]


def _similarity(text: str, name: str) -> float:
  """Share of the pattern's words found, spelled about right, among the words of the name."""
  words = [word for word in re.split(r"[/._]", text) if word]
  parts = re.split(r"[/._]", name)
  if not words:
    return 0.0
  best = [
    max(difflib.SequenceMatcher(None, word, part).ratio() for part in parts) for word in words
  ]
  # Of names that are equally near the shorter one.
  return sum(best) / len(best) - 1e-4 * len(name)
