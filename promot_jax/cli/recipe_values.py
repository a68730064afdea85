"""Which objects a gin file may name: those that a module lists in RECIPE_VALUES, where they live.

Naming an object in a gin file can mean calling it, so trust is given object by object.  A module that
offers something lists its names; they are data classes, and functions that only build values.  The
lists are read with `ast`, so that nothing is imported before a file is found sound; after the import
`require_identity` checks the objects themselves.  Of optax, the functions below.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promot_jax import methods
from promot_jax.errors import ConfigError

LIST = "RECIPE_VALUES"
PACKAGES = ("promot_jax", "tasks", "optax")
_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# `tasks` lies beside the package in a checkout and where it is installed; whatever else is called
# tasks on this machine is never looked at.
_FOLDERS = {"promot_jax": _PACKAGE, "tasks": _PACKAGE.parent / "tasks"}
_OPTAX = (
  "constant_schedule",
  "cosine_decay_schedule",
  "cosine_onecycle_schedule",
  "exponential_decay",
  "join_schedules",
  "linear_onecycle_schedule",
  "linear_schedule",
  "piecewise_constant_schedule",
  "piecewise_interpolate_schedule",
  "polynomial_schedule",
  "sgdr_schedule",
  "warmup_constant_schedule",
  "warmup_cosine_decay_schedule",
  "warmup_exponential_decay_schedule",
  "adabelief",
  "adadelta",
  "adafactor",
  "adagrad",
  "adam",
  "adamax",
  "adamaxw",
  "adamw",
  "amsgrad",
  "fromage",
  "lamb",
  "lars",
  "lion",
  "noisy_sgd",
  "novograd",
  "optimistic_gradient_descent",
  "radam",
  "rmsprop",
  "rprop",
  "sgd",
  "sm3",
  "yogi",
)

_MOVED = {
  "promot_jax.experiments.micro_model": "promot_jax.networks.micro_model",
  "promot_jax.experiments.texts": "promot_jax.networks.texts",
  "promot_jax.methods.probe": "promot_jax.probing.probe",
}
"""Modules that recipes of earlier versions import, by where they are now."""

_NETWORK = "promot_jax.networks.network.Network"
EXPERIMENT = "promot_jax.experiments.experiment.Experiment"
_MOVED_PARAMETERS = {
  (EXPERIMENT, "backbone"): (_NETWORK, "backbone"),
  (EXPERIMENT, "initial_checkpoint"): (_NETWORK, "checkpoint"),
  (EXPERIMENT, "vocabulary"): (_NETWORK, "vocabulary"),
  (EXPERIMENT, "allow_nan"): (_NETWORK, "allow_nan"),
}
"""Parameters that recipes and model directories of earlier versions bind, by where they are now."""
_PLAN = "promot_jax.experiments.experiment.EvaluationPlan"
_RENAMED = {(_PLAN, "unseen_prompt"): "unseen_method"}
"""Parameters that have another name now."""
_RENAMED_MACROS = {"UNSEEN_PROMPT": "UNSEEN_METHOD"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Name:
  """An object by the module that defines it."""

  module: str
  name: str

  @property
  def full(self) -> str:
    """'promot_jax.training.stages.Stage'."""
    return f"{self.module}.{self.name}"


def resolve(module: str, name: str, *, place: str) -> Name:
  """The listed object that `module.name` means, under the module that defines it.

  Args:
    module: of `PACKAGES`.
    place: file and line, for the message.

  Raises:
    ConfigError: nobody lists it, with the nearest name that is listed.
  """
  module = _MOVED.get(module, module)
  if module == "optax":
    if name in _OPTAX:
      return Name(module=module, name=name)
    raise ConfigError(
      f"{place}: optax has no '{name}' that a gin file may use.{near(name, _OPTAX)} They are its "
      "schedules and optimizers."
    )
  names = offered(module, place=place)
  if not names:
    raise ConfigError(
      f"{place}: '{module}' offers nothing to gin files, so '{name}' of it cannot be used there."
    )
  if name not in names:
    raise ConfigError(
      f"{place}: {module} has no '{name}' for gin files.{near(name, names)} It offers: "
      f"{', '.join(names)}."
    )
  for node in _tree(module).body:
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
      return Name(module=module, name=name)
    # A module may list what it imports, as `methods.prompt` does with the initializers of prompts.
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
      for alias in node.names:
        if (alias.asname or alias.name) == name:
          return resolve(node.module, alias.name, place=place)
  raise ConfigError(f"{place}: {module} lists '{name}' and does not define it.")


def moved(selector: str, parameter: str) -> tuple[str, str, str] | None:
  """(selector, parameter, of the former object the one that names the new object) of a moved parameter."""
  found = _MOVED_PARAMETERS.get((selector, parameter))
  return (*found, "network") if found else None


def parameter_now(selector: str, parameter: str) -> str:
  """The name of a parameter that earlier versions may have called otherwise."""
  return _RENAMED.get((selector, parameter), parameter)


def macro_now(name: str) -> str:
  """The name of a macro that earlier versions may have called otherwise."""
  return _RENAMED_MACROS.get(name, name)


def offered(module: str, *, place: str = "") -> tuple[str, ...]:
  """Names that a module of promot_jax or tasks lists.  ConfigError if there is no such module."""
  for node in _tree(_MOVED.get(module, module), place).body:
    if not isinstance(node, ast.Assign):
      continue
    if [target.id for target in node.targets if isinstance(target, ast.Name)] == [LIST]:
      return tuple(ast.literal_eval(node.value))
  return ()


@functools.cache
def modules() -> Mapping[str, str]:
  """Last part of a module's name -> its full name, of every module that lists something."""
  found = {"optax": "optax"}
  folders = list(_FOLDERS.items())
  # Files of methods may lie in further folders, which the package's own path names.
  folders += [(methods.__name__, pathlib.Path(each)) for each in methods.__path__]
  for root, folder in folders:
    for path in sorted(folder.rglob("*.py")):
      # Text before `ast`: few modules list anything, and all are looked at in each command.
      if LIST in path.read_text(encoding="utf-8"):
        parts = [root, *path.relative_to(folder).with_suffix("").parts]
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if offered(module):
          found[module.rpartition(".")[2]] = module
  return found


def short(full: str) -> str:
  """'stages.Stage' of an object of ours; another package's object under its full name."""
  return ".".join(full.split(".")[-2:]) if full.split(".")[0] in PACKAGES else full


def parameters(module: str, name: str) -> list[str] | None:
  """Parameters of a function or class; None where reading the source cannot tell."""
  if module.split(".")[0] not in _FOLDERS:
    return None
  return _parameters(source(module), module, name)


@functools.cache  # by the file, as its text is: a scan asks for every binding
def _parameters(path: pathlib.Path, module: str, name: str) -> list[str] | None:
  nodes = {n.name: n for n in _parsed(path).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
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
    found = _of_base(module, base)
    # An unknown base may have any parameters; a protocol has none.
    if found is None and not re.match(r"Protocol\b|abc\.ABC$", ast.unparse(base)):
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


def _of_base(module: str, base: ast.expr) -> list[str] | None:
  """Parameters of a base class: one of the same module, or `module.Name` of another one of ours."""
  if isinstance(base, ast.Name):
    return parameters(module, base.id)
  if not isinstance(base, ast.Attribute) or not isinstance(base.value, ast.Name):
    return None
  for node in _tree(module).body:
    for alias in node.names if isinstance(node, ast.ImportFrom) else ():
      if (alias.asname or alias.name) == base.value.id:
        return parameters(f"{node.module}.{alias.name}", base.attr)
  return None


def require_identity(full: str, *, allow: Sequence[str] = ()) -> Any:
  """Imports an object and checks that it is what was listed.

  Args:
    full: 'promot_jax.training.stages.Stage'.
    allow: packages of the user's, whose classes and functions are taken as they are.

  Raises:
    ConfigError: it is no class or function, or is defined elsewhere.
  """
  module, _, name = full.rpartition(".")
  value = getattr(importlib.import_module(module), name, None)
  home = getattr(value, "__module__", None) or ""
  own = module.split(".")[0] in PACKAGES
  right = inspect.isclass(value) or inspect.isfunction(value)
  # optax defines its functions in private modules and offers them under its own name.
  if module == "optax":
    right = right and home.split(".")[0] == "optax" and name in _OPTAX
  elif own:
    # An import may have put another object under the name that was read in the source.
    right = right and home == module and getattr(value, "__qualname__", "") == name
    right = right and name in offered(module)
  else:
    right = right and within(home, allow)
  if not right:
    raise ConfigError(
      f"the configuration uses {full}, which is no class or function defined there but "
      f"{type(value).__name__}{f' of {home}' if home else ''}; name it where it is defined."
    )
  return value


def within(module: str, packages: Iterable[str]) -> bool:
  """Whether a module is one of these packages or below one of them."""
  return any(module == package or module.startswith(f"{package}.") for package in packages)


def near(word: str, words: Iterable[str]) -> str:
  """' Did you mean ...?' with the nearest word, or nothing."""
  by_fold = {w.lower(): w for w in words}
  found = difflib.get_close_matches(word.lower(), list(by_fold), 1, cutoff=0.6)
  return f" Did you mean '{by_fold[found[0]]}'?" if found else ""


def source(module: str, *, place: str = "") -> pathlib.Path:
  """File of a module of promot_jax or tasks.  Raises ConfigError with the nearest right name."""
  root, *rest = module.split(".")
  folder = _FOLDERS[root].joinpath(*rest)
  places = [folder.with_suffix(".py"), folder / "__init__.py"]
  if module.rpartition(".")[0] == methods.__name__:  # whose files may lie in several folders
    places += [pathlib.Path(each, f"{rest[-1]}.py") for each in methods.__path__]
  for path in places:
    if path.is_file():
      return path
  names = [p.stem for p in folder.parent.glob("*.py")] if folder.parent.is_dir() else []
  hint = near(rest[-1], names) if rest else f" Is '{root}' installed? Run pip install promot_jax."
  raise ConfigError(f"{place}: there is no module '{module}'.{hint}")


def _tree(module: str, place: str = "") -> ast.Module:
  return _parsed(source(module, place=place))


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"))


def _arguments(node: ast.FunctionDef) -> list[str]:
  return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
