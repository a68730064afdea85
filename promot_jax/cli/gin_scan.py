"""Reads gin files without running them, and finds mistakes before anything heavy is imported.

gin files are programs: parsing one imports modules and resolving it calls functions.  So every file
is first read with gin's own grammar and nothing else.  That is enough to follow includes, to refuse
imports that are not on the allow list, to report undefined or required macros, and (by reading the
source of our own modules with `ast`) to name a wrong parameter with file, line and nearest right one.
"""

import ast
import dataclasses
import difflib
import functools
import importlib.util
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from gin import config_parser

from promot_jax.errors import ConfigError

ALLOWED_IMPORTS = ("promot_jax", "tasks", "optax", "__gin__")
COMMAND_LINE = "command line"


@dataclasses.dataclass(frozen=True)
class Reference:
  """`@scope/module.name` or, called, `@scope/module.name()`."""

  name: str
  called: bool

  def __str__(self):
    return f"@{self.name}{'()' if self.called else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
  """`%NAME`."""

  name: str

  def __str__(self):
    return f"%{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binding:
  """One `scope/selector.parameter = value`; macros have an empty selector's parameter."""

  scope: str
  selector: str
  parameter: str
  value: Any
  place: str  # file:line  text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
  """All files read, what they import, and the last binding of every name."""

  roots: tuple[str, ...]  # the files named by the caller
  files: tuple[str, ...]  # those and their includes
  statements: tuple[str, ...]  # every import, as written
  extra: tuple[str, ...]  # the bindings given after the files
  bindings: dict[tuple[str, str, str], Binding]
  macros: dict[str, Binding]

  def flat(self) -> dict[str, str]:
    """'scope/Selector.parameter' -> value as text, with every macro replaced by its value."""
    values = {}
    for (scope, selector, parameter), binding in self.bindings.items():
      name = ".".join([*selector.split(".")[-2:], parameter])
      values[f"{scope}/{name}" if scope else name] = text(binding.value, self.macros)
    return dict(sorted(values.items()))


class _Delegate(config_parser.ParserDelegate):
  def configurable_reference(self, scoped_name, evaluate):
    return Reference(scoped_name, evaluate)

  def macro(self, scoped_name):
    return Macro(scoped_name)


def recipe_folders() -> list[str]:
  """Where our own recipes are: `gin/` of a checkout, or the installed copy."""
  package = pathlib.Path(__file__).resolve().parent.parent
  candidates = [package.parent / "gin", package / "recipes"]
  return [str(folder) for folder in candidates if (folder / "models").is_dir()]


def find(name: str, folders: Sequence[str], *, place: str = "") -> str:
  """Path of a gin file, as given or below one of `folders`.  Raises ConfigError with near names."""
  for folder in ["", *folders]:
    path = os.path.join(folder, name)
    if os.path.isfile(path):
      return os.path.normpath(path)
  known = sorted(
    path.relative_to(folder).as_posix()
    for folder in folders
    if os.path.abspath(folder) != os.path.abspath(".") or not place
    for path in pathlib.Path(folder).glob("**/*.gin")
    if len(path.relative_to(folder).parts) < 4
  )
  near = difflib.get_close_matches(name, known, 2, cutoff=0.5)
  hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
  raise ConfigError(
    f"{place + ': ' if place else ''}gin file '{name}' was not found.{hint} "
    f"Looked in: {', '.join(f or '.' for f in dict.fromkeys(['.', *folders]))}."
  )


def scan(
  files: Sequence[str],
  bindings: Sequence[str] = (),
  *,
  folders: Sequence[str] = (),
  allow: Sequence[str] = (),
  check: bool = True,
) -> Scan:
  """Reads `files` (later ones win) and then `bindings`, following includes.

  Raises:
    ConfigError: syntax, missing include, forbidden import, unknown symbol or parameter, undefined
      or required macro.  Each with file, line and a suggestion where there is a near name.
  """
  state = _State(folders=tuple(folders), allow=(*ALLOWED_IMPORTS, *allow))
  roots = tuple(find(name, folders) for name in files)
  for path in roots:
    state.read(path)
  known = {b.scope for b in state.bindings.values() if b.selector == "gin.macro"}
  for text in bindings:
    state.read_text(text, COMMAND_LINE)
  macros = {b.scope: b for b in state.bindings.values() if b.selector == "gin.macro"}
  if check:
    _check_command_line(macros, known)
    _check_macros(state.bindings, macros)
  return Scan(
    roots=roots,
    files=tuple(state.files),
    extra=tuple(bindings),
    statements=tuple(dict.fromkeys(s.format() for s in state.imports.values())),
    bindings={k: b for k, b in state.bindings.items() if b.selector != "gin.macro"},
    macros=macros,
  )


class _State:
  """What one scan has read so far."""

  def __init__(self, *, folders: tuple[str, ...], allow: tuple[str, ...]):
    self.folders, self.allow = folders, allow
    self.files: list[str] = []
    self.imports: dict[str, config_parser.ImportStatement] = {}
    self.bindings: dict[tuple[str, str, str], Binding] = {}

  def read(self, path: str) -> None:
    if self.files.count(path) > 20:
      raise ConfigError(f"{path} includes itself.")
    self.files.append(path)
    with open(path, encoding="utf-8") as file:
      self.read_text(file.read(), path)

  def read_text(self, text: str, path: str) -> None:
    stream = io.StringIO(text)
    stream.name = path  # type: ignore[attr-defined]
    imports = dict(self.imports) if path == COMMAND_LINE else {}
    for statement in _statements(stream, text, path):
      place = path if path == COMMAND_LINE else f"{path}:{statement.location.line_num}"
      if isinstance(statement, config_parser.ImportStatement):
        self._allow(statement.module, place)
        if not statement.module.startswith("__gin__"):
          imports[statement.bound_name()] = statement
          self.imports[statement.bound_name()] = statement
          _module_file(statement.module, place)
      elif isinstance(statement, config_parser.IncludeStatement):
        self.read(find(statement.filename, self.folders, place=place))
      elif isinstance(statement, config_parser.BlockDeclaration):
        _resolve(statement.selector, imports, place)
      else:
        self._bind(statement, imports, place)

  def _allow(self, module: str, place: str) -> None:
    root = module.split(".")[0]
    if root not in self.allow:
      raise ConfigError(
        f"{place}: the gin file imports '{module}', and importing runs it. Allowed are "
        f"{', '.join(a for a in self.allow if a != '__gin__')}; if you trust it, add "
        f"--gin_allow_imports={root}."
      )

  def _bind(self, statement, imports, place: str) -> None:
    scope, selector, parameter, value, _ = statement
    if not parameter:  # NAME = value
      scope, selector, parameter = (
        (f"{scope}/{selector}" if scope else selector),
        "gin.macro",
        "value",
      )
    elif selector in ("macro", "gin.macro"):
      selector = "gin.macro"
    else:
      selector = _resolve(selector, imports, place)
      _check_parameter(selector, parameter, place)
    for reference in _walk(value):
      if isinstance(reference, Reference):
        _resolve(reference.name.split("/")[-1], imports, place)
    binding = Binding(scope=scope, selector=selector, parameter=parameter, value=value, place=place)
    self.bindings.pop((scope, selector, parameter), None)
    self.bindings[(scope, selector, parameter)] = binding


def _statements(stream, text: str, path: str) -> Iterator[Any]:
  try:
    yield from config_parser.ConfigParser(stream, _Delegate())
  except SyntaxError as error:
    if path == COMMAND_LINE:
      name, _, value = text.partition(" = ")
      quoted = value.strip("'\"")
      raise ConfigError(
        f"--gin.{name}={value}: the value is no gin value. Strings need quotes inside quotes: "
        f"--gin.{name}=\"'{quoted}'\"."
      ) from None
    line = f":{error.lineno}" if error.lineno else ""
    shown = (error.text or "").strip()
    raise ConfigError(f"{path}{line}: {error.msg} In: {shown}") from None
  except Exception as error:  # the tokenizer's own errors: unclosed brackets, bad indentation
    raise ConfigError(f"{path}: cannot be read as gin: {error}") from None


def _resolve(selector: str, imports, place: str) -> str:
  """Full dotted name of `module.name` in a file with these imports."""
  root, *rest = selector.split(".")
  if root == "gin":
    return selector
  if root not in imports:
    raise ConfigError(
      f"{place}: '{selector}' starts with '{root}', which no import of this file provides."
      f"{_near(root, imports)} Imported here: {', '.join(sorted(imports)) or 'nothing'}."
    )
  module = imports[root].module
  full = ".".join([module, *rest])
  names = _names(module) if len(rest) == 1 else None
  if names is not None and rest[0] not in names:
    raise ConfigError(f"{place}: {module} has no '{rest[0]}'.{_near(rest[0], names)}")
  return full


def _check_parameter(selector: str, parameter: str, place: str) -> None:
  module, _, name = selector.rpartition(".")
  known = _parameters(module, name)
  if known is not None and parameter not in known:
    raise ConfigError(
      f"{place}: '{name}' has no parameter '{parameter}'.{_near(parameter, known)} "
      f"Its parameters are: {', '.join(known)}."
    )


def _check_macros(bindings, macros) -> None:
  problems = []
  for binding in bindings.values():
    for macro in _walk(binding.value):
      if not isinstance(macro, Macro) or "." in macro.name:
        continue
      if macro.name not in macros:
        problems.append(
          f"{binding.place}: macro %{macro.name} is not defined.{_near(macro.name, macros)} "
          f"Define it in the gin file or pass --gin.{macro.name}=VALUE."
        )
      elif macros[macro.name].value == Macro("gin.REQUIRED"):
        problems.append(
          f"{macros[macro.name].place}: {macro.name} has no value yet. "
          f"Pass --gin.{macro.name}=VALUE."
        )
  if problems:
    raise ConfigError("\n".join(dict.fromkeys(problems)))


def _check_command_line(macros, known: set[str]) -> None:
  """A macro that no file mentions would be ignored silently: most likely a typing mistake."""
  always = {"MODEL_DIR", "RANDOM_SEED"}
  for name, binding in macros.items():
    if binding.place == COMMAND_LINE and name not in known | always:
      raise ConfigError(
        f"--gin.{name}: no gin file of this run has a macro of that name."
        f"{_near(name, known)} Its macros are: {', '.join(sorted(known))}."
      )


def _walk(value) -> Iterator[Reference | Macro]:
  if isinstance(value, Reference | Macro):
    yield value
  elif isinstance(value, dict):
    for key, item in value.items():
      yield from _walk(key)
      yield from _walk(item)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _walk(item)


def text(value, macros=MappingProxyType({}), depth: int = 0) -> str:
  """A value as it stands in a gin file, the given macros replaced by their values."""
  if isinstance(value, Macro) and value.name in macros and depth < 20:
    return text(macros[value.name].value, macros, depth + 1)
  if isinstance(value, list | tuple):
    return "[" + ", ".join(text(item, macros, depth) for item in value) + "]"
  if isinstance(value, dict):
    items = (f"{text(k, macros, depth)}: {text(v, macros, depth)}" for k, v in value.items())
    return "{" + ", ".join(items) + "}"
  return str(value) if isinstance(value, Reference | Macro) else repr(value)


# --- our own modules, read with ast ---------------------------------------------------------------


def _module_file(module: str, place: str = "") -> pathlib.Path | None:
  """Source file of one of our modules; None for other packages.  ConfigError if there is none."""
  root, *rest = module.split(".")
  if root not in ("promot_jax", "tasks"):
    return None
  spec = importlib.util.find_spec(root)
  if spec is None or not spec.submodule_search_locations:
    raise ConfigError(f"{place}: package '{root}' is not installed. Run pip install promot_jax.")
  folder = pathlib.Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
  for path in (folder.with_suffix(".py"), folder / "__init__.py"):
    if path.is_file():
      return path
  near = [p.stem for p in folder.parent.glob("*.py")] if folder.parent.is_dir() else []
  raise ConfigError(f"{place}: there is no module '{module}'.{_near(rest[-1], near)}")


@functools.cache
def _tree(module: str) -> ast.Module | None:
  path = _module_file(module)
  return ast.parse(path.read_text()) if path else None


def _names(module: str) -> list[str] | None:
  tree = _tree(module)
  if tree is None:
    return None
  names = []
  for node in tree.body:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
      names.append(node.name)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names += [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names += [target.id for target in targets if isinstance(target, ast.Name)]
  return names


def _parameters(module: str, name: str) -> list[str] | None:
  """Parameters of a function or class; None where reading the source cannot tell."""
  tree = _tree(module) if _is_ours(module) else None
  nodes = {n.name: n for n in tree.body if hasattr(n, "name")} if tree else {}
  node = nodes.get(name)
  if isinstance(node, ast.FunctionDef):
    return None if node.args.kwarg else _arguments(node)
  if not isinstance(node, ast.ClassDef):
    return None
  constructor = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
  if constructor:
    return None if constructor[0].args.kwarg else _arguments(constructor[0])[1:]
  inherited: list[str] = []
  for base in node.bases:
    found = _parameters(module, base.id) if isinstance(base, ast.Name) else None
    if found is None and not (
      isinstance(base, ast.Name | ast.Subscript) and "Protocol" in ast.unparse(base)
    ):
      return None
    inherited += found or []
  own = [
    item.target.id
    for item in node.body
    if isinstance(item, ast.AnnAssign)
    and isinstance(item.target, ast.Name)
    and "ClassVar" not in ast.unparse(item.annotation)
  ]
  return [*inherited, *own]


def _is_ours(module: str) -> bool:
  if module.split(".")[0] not in ("promot_jax", "tasks"):
    return False
  try:
    return _module_file(module) is not None
  except ConfigError:  # a class inside a module: not followed
    return False


def _arguments(node: ast.FunctionDef) -> list[str]:
  return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def _near(word: str, words: Iterable[str]) -> str:
  by_fold = {w.lower(): w for w in words}
  found = difflib.get_close_matches(word.lower(), list(by_fold), 1, cutoff=0.6)
  return f" Did you mean '{by_fold[found[0]]}'?" if found else ""


def difference(old: dict[str, str], new: dict[str, str]) -> list[tuple[str, str, str]]:
  """(name, old value, new value) of every binding that changed between two `Scan.flat()`s."""
  ignored = re.compile(r".*model_dir$")
  return [
    (name, old.get(name, "not set"), new.get(name, "not set"))
    for name in sorted({*old, *new})
    if old.get(name) != new.get(name) and not ignored.fullmatch(name)
  ]
