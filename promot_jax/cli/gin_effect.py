"""Which bindings take part in a run, without running it: settings without effect are refused.

gin takes a binding that nobody asks for in silence, such as one with a misspelt scope.  What asks is
known from the files alone: EXPERIMENT refers to an object in a scope, whose parameters refer to
others.  gin's rule: an object asks in its scope and all scopes around it, the innermost wins; a
reference without a scope is made in the scope of whoever refers to it, a macro's in the scope of the
macro's name.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from promot_jax.cli import gin_files, gin_values
from promot_jax.cli.gin_scan import COMMAND_LINE, Binding, Scan
from promot_jax.cli.gin_values import Macro, Reference
from promot_jax.cli.recipe_values import near, short
from promot_jax.errors import ConfigError

EXPERIMENT = "EXPERIMENT"
ANALYSIS = "ANALYSIS"
OPERATION = "OPERATION"
_LARGEST = 20_000  # objects that one configuration may make
_MACRO = "gin.macro"
SEEDS = "SEEDS"
_ALWAYS = {
  "MODEL_DIR",
  "RANDOM_SEED",
  SEEDS,
  EXPERIMENT,
  ANALYSIS,
}  # have flags, or are what is run
Node = tuple[str, str]
"""(scope, full name): one object in one scope."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
  """What a run asks for: the bindings that win, and every object in its scope."""

  used: frozenset[tuple[str, str, str]]
  objects: frozenset[Node]

  @property
  def macros(self) -> set[str]:
    """Names of the macros that are asked for, without those that say what is built."""
    return {scope for scope, selector in self.objects if selector == _MACRO} - {
      EXPERIMENT,
      ANALYSIS,
      OPERATION,
    }


def reached(scanned: Scan, *, what: str = EXPERIMENT) -> Reached:
  """Follows a macro.

  Args:
    what: the one that is built: EXPERIMENT, ANALYSIS or OPERATION.

  Raises:
    ConfigError: an object is made of itself, or there are endlessly many.
  """
  walk = _Walk(scanned)
  walk.count((what, _MACRO), ())
  return Reached(used=frozenset(walk.used), objects=frozenset(walk.sizes))


def check(scanned: Scan, *, without: Scan | None = None, what: str = EXPERIMENT) -> None:
  """Refuses bindings of the command line and of the user's own files that change nothing.

  Shared files (those included, and those that come with the package for inclusion or as overlays) may
  bind more than a run needs, but an overlay must come after what it changes.

  Args:
    without: the files before micro.gin by themselves.  What it takes the place of had an effect there.
    what: as of `reached`.

  Raises:
    ConfigError: such a binding, with the nearest name that has an effect; or such an overlay.
  """
  _check_order(scanned, what)
  found = reached(scanned, what=what)
  earlier = reached(without).used if without else frozenset()
  # Only what the user wrote for this run: files that are shared serve several kinds of runs.
  own = {COMMAND_LINE, *(path for path in scanned.roots if not gin_files.is_shared(path))}
  problems = []
  for binding in (*scanned.macros.values(), *scanned.bindings.values()):
    key = (binding.scope, binding.selector, binding.parameter)
    source = binding.place if binding.place == COMMAND_LINE else binding.place.rpartition(":")[0]
    replaced = without is not None and source in without.roots and key in earlier
    idle = key not in found.used and not replaced and binding.name not in _ALWAYS
    if source in own and idle:
      problems.append(_sentence(binding, scanned, found))
  if problems:
    raise ConfigError("\n".join(problems))


def _check_order(scanned: Scan, what: str) -> None:
  """Refuses overlays of ours that a file read after them undoes."""
  places = {name: binding.place.rpartition(":")[0] for name, binding in scanned.macros.items()}
  method = places[what]
  for root in scanned.roots:
    if not (gin_files.is_micro(root) or gin_files.is_hardware(root)):
      continue
    start = f"{root} has no effect"
    last = _last(scanned.files, root)
    # The file that binds what is built belongs to the recipe: an overlay that is read before it is
    # undone.
    if method in scanned.files and _last(scanned.files, method) > last:
      raise ConfigError(f"{start}: the recipe is read after it. Name it after the recipe.")
    if gin_files.is_hardware(root) and root not in places.values():
      winner = scanned.macros["MESH_DATA"].place
      raise ConfigError(f"{start}: {winner} sets the mesh after it. Name it last, or leave it out.")


def _last(files: Sequence[str], path: str) -> int:
  return len(files) - 1 - files[::-1].index(path)


def _sentence(binding: Binding, scanned: Scan, found: Reached) -> str:
  flag = "--gin." if binding.place == COMMAND_LINE else f"{binding.place}: "
  start = f"{flag}{binding.name} has no effect"
  if binding.selector == _MACRO:
    return f"{start}: nothing in this run uses %{binding.name}.{near(binding.name, found.macros)}"
  name = short(binding.selector)
  scopes = sorted(scope for scope, selector in found.objects if selector == binding.selector)
  if not scopes:
    made = {short(selector) for _, selector in found.objects if selector != _MACRO}
    return f"{start}: nothing in this run is made by '{name}'.{near(name, made)}"
  # The names of macros are scopes as well, which nobody would write.
  written = {
    each.scope for each in scanned.bindings.values() if each.selector == binding.selector
  } - {binding.scope}
  inner = [scope for scope in scopes if _inside(scope, binding.scope)]
  if not inner:
    usual = {outer for scope in scopes for outer in _outer(scope) if outer} - set(scanned.macros)
    listed = ", ".join(f"'{scope}'" for scope in sorted(usual)) or "no scope"
    hint = near(binding.scope, usual) or f" It is made in {listed}."
    return f"{start}: no '{name}' is made in the scope '{binding.scope}'.{hint}"
  winners = sorted(
    f"{scope}/{name}.{binding.parameter}"
    for scope in written
    if scope and (scope, binding.selector, binding.parameter) in found.used
  )
  return f"{start}: {' and '.join(winners) or 'an inner scope'} is bound and wins; bind that."


def _inside(scope: str, outer: str) -> bool:
  return not outer or scope == outer or scope.startswith(f"{outer}/")


def _outer(scope: str) -> list[str]:
  """'' and 'a' and 'a/b' of 'a/b'."""
  parts = scope.split("/") if scope else []
  return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


class _Walk:
  """Objects in their scopes, each looked at once."""

  def __init__(self, scanned: Scan):
    self.sizes: dict[Node, int] = {}
    self.used: set[tuple[str, str, str]] = set()
    self._bindings: Mapping[tuple[str, str, str], Binding] = {
      (b.scope, b.selector, b.parameter): b
      for b in (*scanned.bindings.values(), *scanned.macros.values())
    }
    self._parameters: dict[str, set[str]] = {}
    for _, selector, parameter in self._bindings:
      self._parameters.setdefault(selector, set()).add(parameter)

  def count(self, node: Node, path: tuple[Node, ...]) -> int:
    """How many objects making this one makes."""
    if node in self.sizes:
      return self.sizes[node]
    scope, selector = node
    if node in path or len(path) > 200:
      name = f"%{scope}" if selector == _MACRO else f"{scope}/{short(selector)}".lstrip("/")
      raise ConfigError(f"the configuration is endless: {name} is made of itself.")
    # Counted, not only visited: macros that each name another one twice make 2 ** n objects.
    size = 1
    for parameter in self._parameters.get(selector, ()):
      scopes = [""] if selector == _MACRO and not scope else _outer(scope)
      keys = [(each, selector, parameter) for each in scopes]
      # From the innermost scope outwards, as gin looks.
      winner = next((key for key in reversed(keys) if key in self._bindings), None)
      if winner is None:
        continue
      self.used.add(winner)
      for found in gin_values.walk(self._bindings[winner].value):
        size += self._count(found, scope, (*path, node))
    if size > _LARGEST:
      raise ConfigError(f"the configuration is endless: it makes more than {_LARGEST:,} objects.")
    self.sizes[node] = size
    return size

  def _count(self, found: Reference | Macro, scope: str, path: tuple[Node, ...]) -> int:
    if isinstance(found, Macro):
      return 0 if found.name == gin_values.REQUIRED else self.count((found.name, _MACRO), path)
    if found.called:
      return self.count((found.scope or scope, found.selector), path)
    # Handed over, and called later by the library, outside of every scope.
    for each in {found.scope, found.scope or scope}:
      node = (each, found.selector)
      if node not in path:
        self.count(node, path)
    return 1
