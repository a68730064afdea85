"""From scanned gin files to the object they describe.

This is the only file where gin runs.  It never runs a file: what it is given is written anew from the
scan (`program`), in which every name is that of a listed object (`recipe_values`), and the objects are
looked at once more after they are imported.
"""

import dataclasses
import importlib.util  # noqa: F401  gin 0.5 uses it without importing it
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_internals

from promot_jax import errors
from promot_jax.cli import gin_effect, gin_files, gin_scan, gin_values, recipe_values
from promot_jax.cli.gin_effect import ANALYSIS, EXPERIMENT, OPERATION
from promot_jax.cli.gin_values import REQUIRED, Macro
from promot_jax.errors import ConfigError, PromotError


def read(
  files: Sequence[str],
  bindings: Sequence[str],
  *,
  search_paths: str = ".",
  allow_imports: str = "",
  what: str = EXPERIMENT,
) -> gin_scan.Scan:
  """Scans the files and bindings of one command line; imports nothing heavy.

  `what` is the macro that is to be built: EXPERIMENT, ANALYSIS or OPERATION.  Adds `MODEL_DIR = 'runs/<first file's name>'` where nothing else says where to write, with `_micro`
  where micro.gin follows: RECIPE_micro.gin is short for both.
  """
  if not files:
    raise ConfigError("no --gin_file given. For a first run: --gin_file=promot_rte_micro.gin.")
  # The user's folders go before ours, so that a file of one's own can stand in for a part of a
  # recipe.
  folders = [*_split(search_paths), *gin_files.recipe_folders()]
  allow = permitted(allow_imports)
  # Without checks at first: whether MODEL_DIR is bound decides which bindings there are.
  unchecked = gin_scan.scan(files, bindings, folders=folders, allow=allow, check=False)
  if "MODEL_DIR" not in unchecked.macros:
    small = any(pathlib.Path(name).name == gin_files.MICRO for name in files[1:])
    folder = pathlib.Path(files[0]).stem + ("_micro" if small else "")
    bindings = [f"MODEL_DIR = 'runs/{folder}'", *bindings]
  scanned = gin_scan.scan(files, bindings, folders=folders, allow=allow)
  if what in scanned.macros:
    gin_effect.check(scanned, without=_without_micro(scanned, folders), what=what)
  return scanned


def _without_micro(scanned: gin_scan.Scan, folders: Sequence[str]) -> gin_scan.Scan | None:
  """The files before micro.gin by themselves, where they are a recipe."""
  number = next((i for i, root in enumerate(scanned.roots) if gin_files.is_micro(root)), 0)
  before = gin_scan.scan(scanned.roots[:number], folders=folders, allow=scanned.allow, check=False)
  return before if EXPERIMENT in before.macros else None


def permitted(allow_imports: str) -> list[str]:
  """The packages that --gin_allow_imports names."""
  return _split(allow_imports)


def build(scanned: gin_scan.Scan, *, what: str = EXPERIMENT) -> Any:
  """Makes the value of a macro: EXPERIMENT, ANALYSIS or OPERATION.

  Raises:
    ConfigError: with gin's message in plain words, or the ConfigError of a class's own checks.
  """
  if what not in scanned.macros:
    usual = {
      EXPERIMENT: f"Recipes end in an include of runs/, or bind {EXPERIMENT} = @experiment.Experiment().",
      ANALYSIS: f"Files of analyses bind {ANALYSIS} to one, such as @trade_off.TradeOff().",
      OPERATION: f"Files of operations bind {OPERATION} to one, such as @operations.Mean().",
    }
    raise ConfigError(
      f"{scanned.files[0]} binds no {what}, so there is nothing to run. {usual[what]}"
    )
  made = _built(scanned, what)
  if not getattr(made, "axes", None):
    return made

  def at(point: Mapping[str, Any]) -> Any:
    return _built(_with_macros(scanned, point), what)

  expanded = made.expanded(at)
  _built(scanned, what)  # last, as `texts` are of what was built last
  return expanded


def _with_macros(scanned: gin_scan.Scan, values: Mapping[str, Any]) -> gin_scan.Scan:
  """A scan with other values of its macros.

  Raises:
    ConfigError: nothing in it uses such a macro.
  """
  used = gin_effect.reached(scanned).macros
  for name in values:
    if name not in scanned.macros or name not in used:
      raise ConfigError(
        f"Comparison.axes has '{name}': nothing in this run uses %{name}.{recipe_values.near(name, used)}"
      )
  changed = {
    name: dataclasses.replace(scanned.macros[name], value=value) for name, value in values.items()
  }
  return dataclasses.replace(scanned, macros={**scanned.macros, **changed})


def _built(scanned: gin_scan.Scan, what: str) -> Any:
  gin_effect.reached(scanned, what=what)  # refuses what would never end
  gin.clear_config()  # never finalized: a process may build several recipes, as the tests do
  try:
    # Before gin parses, which imports and registers what is named.
    for full in _objects(scanned):
      recipe_values.require_identity(full, allow=scanned.allow)
    gin.parse_config(program(scanned))
    _check_registered(scanned)
    return gin.get_configurable(f"{what}/gin.macro")()
  except PromotError as error:
    # gin raises a stand-in class of the same name, which cannot be made from a message.
    kind = getattr(errors, type(error).__name__, ConfigError)
    raise kind(_without_call(str(error))) from error
  except RecursionError as error:
    raise ConfigError(
      "the configuration is endless, or its values are nested too deeply."
    ) from error
  except Exception as error:
    raise ConfigError(_plain(error, scanned)) from error


def program(scanned: gin_scan.Scan) -> str:
  """The gin file that is run: what was scanned, includes resolved, under the objects' own names."""
  by_name = {full.rpartition(".")[0]: "" for full in _objects(scanned)}
  lines = ["from __gin__ import dynamic_registration"]
  for number, module in enumerate(by_name):
    package, _, last = module.rpartition(".")
    if module.split(".")[0] in recipe_values.PACKAGES:
      by_name[module] = last
      lines.append(f"from {package} import {last}" if package else f"import {module}")
    else:
      # A user's module may end in the name of one of ours.
      by_name[module] = f"module_{number}"
      lines.append(f"import {module} as {by_name[module]}")
  # Imported for what they do, such as registering a task, though nothing of them is named.
  lines += [f"import {module}" for module in scanned.modules if module not in by_name]

  def selector(full: str) -> str:
    module, _, name = full.rpartition(".")
    return f"{by_name[module]}.{name}"

  def reference(found: gin_values.Reference) -> str:
    scope = f"{found.scope}/" if found.scope else ""
    return f"@{scope}{selector(found.selector)}{'()' if found.called else ''}"

  for name, binding in scanned.macros.items():
    if binding.value != Macro(REQUIRED):
      lines.append(f"{name} = {gin_values.text(binding.value, reference=reference)}")
  for binding in scanned.bindings.values():
    scope = f"{binding.scope}/" if binding.scope else ""
    value = gin_values.text(binding.value, reference=reference)
    lines.append(f"{scope}{selector(binding.selector)}.{binding.parameter} = {value}")
  return "\n".join(lines) + "\n"


def texts() -> tuple[str, str]:
  """(config.gin, operative_config.gin) of what was built last."""
  return gin.config_str(), gin.operative_config_str()


def shown(value: Any) -> str:
  """A scanned value as it stands in a gin file."""
  return gin_values.text(value)


def _split(text: str) -> list[str]:
  return [part for part in text.split(",") if part]


def _objects(scanned: gin_scan.Scan) -> list[str]:
  """Full name of every object that is bound or referred to, in a fixed order."""
  found = {binding.selector for binding in scanned.bindings.values()}
  for binding in (*scanned.bindings.values(), *scanned.macros.values()):
    found |= {r.selector for r in gin_values.walk(binding.value) if not isinstance(r, Macro)}
  return sorted(found)


def _check_registered(scanned: gin_scan.Scan) -> None:
  """What gin would call is what was found, and nothing else."""
  expected = {
    recipe_values.require_identity(full, allow=scanned.allow) for full in _objects(scanned)
  }
  expected.add(gin_internals.macro)
  # gin's own records, which have no public view: what it would call is only known there.
  keys = [gin_internals._REGISTRY[selector] for _, selector in gin_internals._CONFIG]
  references = gin_internals.iterate_references(gin_internals._CONFIG)
  for configurable in (*keys, *(reference.configurable for reference in references)):
    if configurable.wrapped not in expected:
      raise ConfigError(
        f"the configuration would call {configurable.wrapped}, which is not listed."
      )


def _without_call(message: str) -> str:
  """A message of our own without the line that gin appends about the class it was building."""
  return re.split(r"\n\s*In call to configurable", message, maxsplit=1)[0].rstrip()


def _plain(error: Exception, scanned: gin_scan.Scan) -> str:
  """gin's message without its file dump: 'files: sentence (while building NAME)'."""
  message = str(error).strip() or type(error).__name__
  call = re.search(r"In call to configurable '([^']+)'", message)
  sentence = " ".join(message.splitlines()[0].split())
  end = f" (while building {call[1]})" if call else ""
  return f"{', '.join(scanned.roots)}: {sentence}{end}"
