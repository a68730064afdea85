"""From scanned gin files to the object they describe.

This is the only file where gin runs.  What a recipe may call is restricted twice: its imports were
checked by `gin_scan`, and here every configurable must be defined in an allowed package (an allowed
module's attributes include the modules that it imports itself).
"""

import importlib.util  # noqa: F401  gin 0.5 uses it without importing it
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import gin
from gin import config as gin_internals

from promot_jax import errors
from promot_jax.cli import gin_scan
from promot_jax.errors import ConfigError, PromotError

EXPERIMENT = "EXPERIMENT"  # the macro that every runnable recipe binds
# Bindings that may not change between two starts in one model directory: the checkpoints there would
# not fit, or the result would be of two runs mixed.
_FIXED = re.compile(
  r"Config\.|(SoftPrompt|PromptNetwork|PrefixTuning|InfixTuning|Reparameterization|Combined)\.|"
  r"Experiment\.\w*feature_lengths$|Stage\.(batch_size|trainable)$|"
  r"Experiment\.(seed|task|stage_tasks|vocabulary|source|targets|selection|train_limit|method|"
  r"backbone|initial_checkpoint)$"
)


def read(
  files: Sequence[str],
  bindings: Sequence[str],
  *,
  search_paths: str = ".",
  allow_imports: str = "",
) -> gin_scan.Scan:
  """Scans the files and bindings of one command line; imports nothing heavy.

  Adds `MODEL_DIR = 'runs/<first file's name>'` where nothing else says where to write.
  """
  if not files:
    raise ConfigError("no --gin_file given. For a first run: --gin_file=promot_rte_micro.gin.")
  folders, allow = _folders(search_paths), _split(allow_imports)
  unchecked = gin_scan.scan(files, bindings, folders=folders, allow=allow, check=False)
  if "MODEL_DIR" not in unchecked.macros:
    bindings = [f"MODEL_DIR = 'runs/{pathlib.Path(files[0]).stem}'", *bindings]
  return gin_scan.scan(files, bindings, folders=folders, allow=allow)


def build(
  scanned: gin_scan.Scan,
  *,
  search_paths: str = ".",
  allow_imports: str = "",
) -> Any:
  """Runs gin on what was scanned and returns the value of the macro EXPERIMENT.

  Raises:
    ConfigError: with gin's message in plain words, or the ConfigError of a class's own checks.
  """
  if EXPERIMENT not in scanned.macros:
    raise ConfigError(
      f"{scanned.files[0]} binds no {EXPERIMENT}, so there is nothing to run. Recipes end in an "
      f"include of runs/, or bind {EXPERIMENT} = @experiment.Experiment()."
    )
  gin.clear_config()  # never finalized: a process may build several recipes, as the tests do
  # Plain files only: gin's reader of package resources logs an error for each folder it tries.
  gin_internals._FILE_READERS[:] = [(open, os.path.isfile)]
  gin_internals._LOCATION_PREFIXES[:] = ["", *_folders(search_paths)]
  try:
    for path in scanned.roots:
      gin.parse_config_file(path)
    header = ["from __gin__ import dynamic_registration", *scanned.statements]
    gin.parse_config([*header, *scanned.extra])
    _check_origins((*gin_scan.ALLOWED_IMPORTS, *_split(allow_imports), "gin"))
    return gin.get_configurable(f"{EXPERIMENT}/gin.macro")()
  except PromotError as error:
    # gin raises a stand-in class of the same name, which cannot be made from a message.
    kind = getattr(errors, type(error).__name__, ConfigError)
    raise kind(_without_call(str(error))) from error
  except Exception as error:
    raise ConfigError(_plain(error)) from error


def texts() -> tuple[str, str]:
  """(config.gin, operative_config.gin) of what was built last."""
  return gin.config_str(), gin.operative_config_str()


def compare_with_earlier(scanned: gin_scan.Scan, earlier: str, *, allow_change: bool) -> list[str]:
  """Lines that say what changed since `earlier` (the flat text written by the last start).

  Raises:
    ConfigError: a binding changed that a started run cannot change, and `allow_change` is off.
  """
  old = dict(line.split(" = ", 1) for line in earlier.splitlines() if " = " in line)
  changes = gin_scan.difference(old, scanned.flat())
  lines = [f"{name}: {before} -> {after}" for name, before, after in changes]
  fixed = [line for line, change in zip(lines, changes) if _FIXED.search(change[0])]
  if fixed and not allow_change:
    raise ConfigError(
      "this model directory was started with another configuration: "
      + "; ".join(fixed)
      + ". Use another --model_dir, or --allow_config_change if the mixture is intended."
    )
  return lines


def flat_text(scanned: gin_scan.Scan) -> str:
  """One `name = value` a line, macros resolved: what `compare_with_earlier` reads."""
  return "".join(f"{name} = {value}\n" for name, value in scanned.flat().items())


def shown(value: Any) -> str:
  """A scanned value as it stands in a gin file."""
  return gin_scan.text(value)


def _folders(search_paths: str) -> list[str]:
  return [*_split(search_paths), *gin_scan.recipe_folders()]


def _split(text: str) -> list[str]:
  return [part for part in text.split(",") if part]


def _check_origins(allowed: Sequence[str]) -> None:
  used = [
    reference.configurable for reference in gin_internals.iterate_references(gin_internals._CONFIG)
  ]
  for configurable in used:  # what is bound but never referenced is never called
    module = getattr(configurable.wrapped, "__module__", "") or ""
    if module.split(".")[0] not in allowed:
      raise ConfigError(
        f"the gin files configure {module}.{configurable.name}, which is defined outside "
        f"{', '.join(a for a in allowed if not a.startswith('__'))}. "
        "If you trust it, import its own package and add --gin_allow_imports."
      )


def _without_call(message: str) -> str:
  """A message of our own without the line that gin appends about the class it was building."""
  return re.split(r"\n\s*In call to configurable", message, maxsplit=1)[0].rstrip()


def _plain(error: Exception) -> str:
  """gin's message without its file dump: 'file:line: sentence'."""
  message = str(error).strip() or type(error).__name__
  place = re.search(r'In file "([^"]+)", line (\d+)', message)
  call = re.search(r"In call to configurable '([^']+)'", message)
  sentence = " ".join(message.splitlines()[0].split())
  start = f"{place[1]}:{place[2]}: " if place else ""
  end = f" (while building {call[1]})" if call else ""
  return f"{start}{sentence}{end}"
