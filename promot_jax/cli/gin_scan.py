"""Reads gin files without running them, and finds mistakes before anything heavy is imported.

gin files are programs: parsing one imports modules and resolving it calls functions.  So every file
is only read, with gin's own grammar.  That is enough to follow includes, to refuse imports and names
that nobody lists (`recipe_values`), to report undefined or required macros, and to name a wrong
parameter with file, line and nearest right one.  What runs later is made from what was read here
(`gin_config`), never from the files.
"""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

from gin import config_parser

from promot_jax.cli import gin_files, gin_values, recipe_values
from promot_jax.cli.gin_values import REQUIRED, Macro, Reference
from promot_jax.cli.recipe_values import near
from promot_jax.errors import ConfigError

COMMAND_LINE = "command line"
_MACRO = "gin.macro"
_INCLUDES = 20  # times that one file may be read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binding:
  """One `scope/selector.parameter = value`; a macro is `NAME/gin.macro.value`."""

  scope: str
  selector: str  # full name, 'promot_jax.training.stages.Stage'
  parameter: str
  value: Any
  place: str  # file:line, or COMMAND_LINE

  @property
  def name(self) -> str:
    """'scope/stages.Stage.steps', or the macro's name."""
    if self.selector == _MACRO:
      return self.scope
    name = f"{recipe_values.short(self.selector)}.{self.parameter}"
    return f"{self.scope}/{name}" if self.scope else name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
  """All files read, the user's own modules that they import, and the last binding of every name."""

  roots: tuple[str, ...]  # the files named by the caller
  files: tuple[str, ...]  # those and their includes
  modules: tuple[str, ...]  # imported by permission (--gin_allow_imports), in order
  allow: tuple[str, ...]  # that permission
  extra: tuple[str, ...]  # the bindings given after the files
  bindings: dict[tuple[str, str, str], Binding]
  macros: dict[str, Binding]

  def flat(self, *, alike: bool = False) -> dict[str, str]:
    """'scope/stages.Stage.steps' -> value as text, with every macro replaced by its value."""
    return dict(
      sorted(
        (binding.name, gin_values.text(binding.value, self.macros, alike=alike))
        for binding in self.bindings.values()
      )
    )


class _Delegate(config_parser.ParserDelegate):
  def configurable_reference(self, scoped_name, evaluate):
    return Reference(scoped_name, evaluate)

  def macro(self, scoped_name):
    return Macro(scoped_name)


def scan(
  files: Sequence[str],
  bindings: Sequence[str] = (),
  *,
  folders: Sequence[str] = (),
  allow: Sequence[str] = (),
  check: bool = True,
) -> Scan:
  """Reads `files` (later ones win) and then `bindings`, following includes.

  Args:
    folders: where files and includes are looked for.
    allow: further packages that may be imported.
    check: whether macros that are undefined or required and have no value are refused.

  Raises:
    ConfigError: syntax, missing include, forbidden import, unlisted name, unknown parameter, undefined
      or required macro.  Each with file, line and a suggestion where there is a near name.
  """
  reader = Reader(folders=folders, allow=allow)
  roots = tuple(path for name in files for path in gin_files.find(name, folders))
  for path in roots:
    reader.read(path)
  return reader.scan(bindings, roots=roots, check=check)


class Reader:
  """What one scan has read so far."""

  def __init__(self, *, folders: Sequence[str] = (), allow: Sequence[str] = (), foreign=False):
    """An empty one.

    Args:
      foreign: the text is of a model directory: plain bindings, with the names of `recipe_values`.
    """
    for package in allow:
      # Of these objects are listed one by one; a package that is allowed as a whole may be named
      # all through.
      if package.split(".")[0] in (*recipe_values.PACKAGES, "gin", "__gin__"):
        raise ConfigError(
          f"--gin_allow_imports={package}: gin files may use what {package.split('.')[0]} lists for "
          "them and nothing else of it; leave the flag out."
        )
    self.folders, self.allow, self.foreign = tuple(folders), tuple(allow), foreign
    self.files: list[str] = []
    self.modules: dict[str, None] = {}
    self.bindings: dict[tuple[str, str, str], Binding] = {}
    self._imports: dict[str, config_parser.ImportStatement] = {}

  def read(self, path: str) -> None:
    """Reads a file and what it includes."""
    # Several files may include one; only a circle reads it so often.
    if self.files.count(path) > _INCLUDES:
      raise ConfigError(f"{path} includes itself.")
    self.files.append(path)
    self.read_text(gin_files.file_text(path), path)

  def scan(self, bindings: Sequence[str], *, roots: Sequence[str], check: bool) -> Scan:
    """The scan of what was read and of further bindings."""
    # Of the files alone: a macro that only the command line has is a typing mistake.
    known = {b.scope for b in self.bindings.values() if b.selector == _MACRO}
    for text in bindings:
      self.read_text(text, COMMAND_LINE)
    macros = {b.scope: b for b in self.bindings.values() if b.selector == _MACRO}
    if check:
      _check_command_line(macros, known)
      _check_macros(self.bindings, macros)
    return Scan(
      roots=tuple(roots),
      files=tuple(self.files),
      modules=tuple(self.modules),
      allow=self.allow,
      extra=tuple(bindings),
      bindings={k: b for k, b in self.bindings.items() if b.selector != _MACRO},
      macros=macros,
    )

  def read_text(self, text: str, path: str) -> None:
    """Reads the text of a file; `path` is for messages, and COMMAND_LINE for a binding's."""
    # A binding of the command line has no imports of its own: it may use those of all files.
    imports = dict(self._imports) if path == COMMAND_LINE else {}
    for statement in statements(text, path):
      place = path if path == COMMAND_LINE else f"{path}:{statement.location.line_num}"
      if isinstance(statement, config_parser.ImportStatement):
        self._import(statement, imports, place)
      elif isinstance(statement, config_parser.IncludeStatement):
        if self.foreign and path != COMMAND_LINE:
          raise ConfigError(f"{place}: the configuration of a model directory includes no files.")
        for found in gin_files.find(statement.filename, self.folders, place=place):
          self.read(found)
      elif isinstance(statement, config_parser.BlockDeclaration):
        self._resolve(statement.selector, imports, place)
      else:
        self._bind(statement, imports, place)

  def permit(self, module: str, place: str) -> None:
    """Notes a module of the user's own.  Raises ConfigError where it is not allowed."""
    root = module.split(".")[0]
    if not recipe_values.within(module, self.allow):
      if self.foreign and place != COMMAND_LINE:
        raise ConfigError(
          f"{place}: this model directory was made with the package '{root}', and importing runs it. "
          f"If you trust it, repeat --gin_allow_imports={root}."
        )
      raise ConfigError(
        f"{place}: the gin file imports '{module}', and importing runs it. Allowed are "
        f"{', '.join((*recipe_values.PACKAGES, *self.allow))}; if you trust it, add "
        f"--gin_allow_imports={root}."
      )
    # A kept configuration names our modules by their last part, for which another one would be
    # taken.
    if module in recipe_values.modules():
      raise ConfigError(
        f"{place}: promot_jax has a module '{module}' for gin files; give your own another name."
      )
    self.modules[module] = None

  def _import(self, statement, imports, place: str) -> None:
    module = statement.module
    if module == "__gin__" or module.startswith("__gin__."):
      if module != "__gin__.dynamic_registration" or statement.alias:
        raise ConfigError(
          f"{place}: of __gin__ there is only: from __gin__ import dynamic_registration."
        )
      return
    # In every file these two mean gin's own objects.
    if statement.bound_name() in ("gin", "macro"):
      raise ConfigError(f"{place}: an import may not be called '{statement.bound_name()}' here.")
    if module.split(".")[0] in ("promot_jax", "tasks"):
      if not recipe_values.offered(module, place=place):
        raise ConfigError(f"{place}: '{module}' offers nothing to gin files; see docs/gin.md.")
    elif module.startswith("optax."):
      raise ConfigError(f"{place}: import optax itself instead of '{module}'.")
    elif module != "optax":
      self.permit(module, place)
    names = {statement.bound_name(), module}  # `import a.b` and `import a.c` both bind a
    imports.update(dict.fromkeys(names, statement))
    self._imports.update(dict.fromkeys(names, statement))

  def _bind(self, statement, imports, place: str) -> None:
    scope, selector, parameter, value, _ = statement
    if not parameter:  # NAME = value
      scope = recipe_values.macro_now(f"{scope}/{selector}" if scope else selector)
      selector, parameter = _MACRO, "value"
    elif selector in ("macro", _MACRO) and parameter == "value" and scope:
      scope, selector = recipe_values.macro_now(scope), _MACRO
    else:
      selector = self._resolve(selector, imports, place)
      parameter = recipe_values.parameter_now(selector, parameter)
      if moved := recipe_values.moved(selector, parameter):
        self._refer(scope, selector, moved, place)
        selector, parameter, _ = moved
      _check_parameter(selector, parameter, place)
    if len(scope) > 200:
      raise ConfigError(f"{place}: the scope '{scope[:40]}...' is too long.")

    def named(found: Reference | Macro) -> Reference | Macro:
      if isinstance(found, Macro):
        return self._macro(found.name, place)
      if found.selector in ("macro", _MACRO) and found.called:  # @NAME/macro() is %NAME
        return self._macro(found.scope, place)
      full = self._resolve(found.selector, imports, place)
      return Reference(f"{found.scope}/{full}" if found.scope else full, found.called)

    try:
      value = gin_values.replaced(value, named)
    except ConfigError as error:
      raise error if place in str(error) else ConfigError(f"{place}: {error}") from None
    binding = Binding(scope=scope, selector=selector, parameter=parameter, value=value, place=place)
    # Taken out first: a configuration is written in the order of the last bindings.
    self.bindings.pop((scope, selector, parameter), None)
    self.bindings[(scope, selector, parameter)] = binding

  def _refer(self, scope: str, selector: str, moved: tuple[str, str, str], place: str) -> None:
    """Lets the former owner of a moved parameter name the new one, where nothing else is said."""
    target, _, parameter = moved
    # What a file says of the new parameter itself goes before what its former place implies.
    scopes = {s for s, owner, p in self.bindings if (owner, p) == (selector, parameter)}
    if scope not in scopes and "" not in scopes:
      self.bindings[(scope, selector, parameter)] = Binding(
        scope=scope,
        selector=selector,
        parameter=parameter,
        value=Reference(target, True),
        place=place,
      )

  def _macro(self, name: str, place: str) -> Macro:
    if not name or ("." in name and name != REQUIRED):
      raise ConfigError(
        f"{place}: '%{name}' is no macro; gin's constants are not used here. Write the value."
      )
    return Macro(recipe_values.macro_now(name))

  def _resolve(self, selector: str, imports: Mapping[str, Any], place: str) -> str:
    """Full name of `module.name` in a file with these imports."""
    root, *rest = selector.split(".")
    if root in ("gin", "macro", "constant", "singleton"):
      raise ConfigError(f"{place}: '{selector}' is gin's own and is not used here.")
    module: str | None
    if self.foreign and root not in imports:
      module, name = self._foreign(selector, place)
    elif root not in imports:
      raise ConfigError(
        f"{place}: '{selector}' starts with '{root}', which no import of this file provides."
        f"{near(root, imports)} Imported here: {', '.join(sorted(imports)) or 'nothing'}."
      )
    else:
      module, name = _module_and_name(imports[root], rest, imports)
    if module is None or not name:
      raise ConfigError(
        f"{place}: '{selector}' is not MODULE.NAME, an object by the module that defines it."
      )
    if module.split(".")[0] in recipe_values.PACKAGES:
      return recipe_values.resolve(module, name, place=place).full
    self.permit(module, place)
    return f"{module}.{name}"

  def _foreign(self, selector: str, place: str) -> tuple[str, str]:
    module, _, name = selector.rpartition(".")
    known = recipe_values.modules()
    if "." in module or module in self.modules:  # another package's, under its full name
      return module, name
    if module not in known:
      raise ConfigError(
        f"{place}: this version of promot_jax has no module '{module}' for gin files."
        f"{near(module, known)} Use the version that wrote it, or the recipe with --gin_file."
      )
    return known[module], name


def _module_and_name(statement, rest: list[str], imports) -> tuple[str | None, str]:
  """(module, name) of a selector; no module where it walks through attributes."""
  if statement.alias or statement.is_from or "." not in statement.module:
    return (statement.module, rest[0]) if len(rest) == 1 else (None, "")
  root = statement.module.split(".")[0]  # import a.b.c: everything below a by its full name
  module = ".".join([root, *rest[:-1]])
  imported = {each.module for each in imports.values()}
  return (module, rest[-1]) if rest and module in imported else (None, "")


@functools.lru_cache(maxsize=256)  # includes are read for each file that names them, and twice
def statements(text: str, path: str) -> tuple[Any, ...]:
  """The statements of a gin file.  Raises ConfigError with file and line."""
  stream = io.StringIO(text)
  stream.name = path  # type: ignore[attr-defined]
  try:
    return tuple(config_parser.ConfigParser(stream, _Delegate()))
  except SyntaxError as error:
    if path == COMMAND_LINE:
      name, _, value = text.partition(" = ")
      quoted = value.strip("'\"")
      raise ConfigError(
        f"--gin.{name}={value}: the value is no gin value. Strings need quotes inside quotes: "
        f"--gin.{name}=\"'{quoted}'\"."
      ) from None
    line = f":{error.lineno}" if error.lineno else ""
    shown = (error.text or "").strip()[:200]
    sentence = " ".join(error.msg.split())
    raise ConfigError(f"{path}{line}: {sentence} In: {shown}") from None
  except ConfigError:
    raise
  except RecursionError:
    raise ConfigError(f"{path}: brackets are nested too deeply.") from None
  except Exception as error:  # the tokenizer's own errors: unclosed brackets, bad indentation
    raise ConfigError(f"{path}: cannot be read as gin: {error}") from None


def _check_parameter(selector: str, parameter: str, place: str) -> None:
  module, _, name = selector.rpartition(".")
  known = recipe_values.parameters(module, name)
  if known is not None and parameter not in known:
    raise ConfigError(
      f"{place}: '{name}' has no parameter '{parameter}'.{near(parameter, known)} "
      f"Its parameters are: {', '.join(known)}."
    )


def _check_macros(bindings, macros) -> None:
  problems = []
  for binding in bindings.values():
    for macro in gin_values.walk(binding.value):
      if not isinstance(macro, Macro):
        continue
      if macro.name == REQUIRED:
        if binding.selector != _MACRO:
          problems.append(f"{binding.place}: {binding.name} has no value yet; give it one.")
      elif macro.name not in macros:
        problems.append(
          f"{binding.place}: macro %{macro.name} is not defined.{near(macro.name, macros)} "
          f"Define it in the gin file or pass --gin.{macro.name}=VALUE."
        )
      elif macros[macro.name].value == Macro(REQUIRED):
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
        f"{near(name, known)} Its macros are: {', '.join(sorted(known))}."
      )
