"""The configuration that a model directory was started with, kept there as plain values.

`config.flat.txt` is what is read again: one `NAME = value` a line, macros first, under the names of
`recipe_values`, parsed by our own scanner and never run.  Beside it, for people: `config.gin` (a
recipe in one file) and `operative_config.gin` (what was used, defaults included).  Directories of
earlier versions have a flat file without macros; of those, `config.gin` is read in the same way.
`starts.jsonl` has a line for every accepted start: when, which command, what it changed; passwords
and tokens in its URLs are masked.
"""

import dataclasses
import json
import os
import pathlib
import re
import time
from collections.abc import Sequence

from promot_jax import __version__
from promot_jax.cli import gin_config, gin_effect, gin_files, gin_scan, gin_values, recipe_values
from promot_jax.cli.gin_effect import EXPERIMENT
from promot_jax.errors import CannotWrite, ConfigError
from promot_jax.printable import without_secrets

FLAT = "config.flat.txt"
GIN = "config.gin"
OPERATIVE = "operative_config.gin"
STARTS = "starts.jsonl"
_VERSION = 2
_HEADER = "# promot_jax configuration, version "
_MODULES = "# modules: "
# Bindings that may not change between two starts in one model directory: the checkpoints there would
# not fit, or the result would be of two runs mixed.  Nor may those of methods.  A stage's `trainable`
# is no text to compare: a checkpoint says itself which parameters it has, and fits no others.
_FIXED = re.compile(
  r"Config\.|Experiment\.\w*feature_lengths$|Stage\.(batch_size|teacher|penalty)$|(L2SP|EWC)\.anchor$|Fisher\.|Replay\.|"
  r"Experiment\.(seed|task|stage_tasks|replay|vocabulary|source|targets|selection|train_limit|method|"
  r"network)$|Network\.(backbone|checkpoint|vocabulary)$"
)


_METHODS = "promot_jax.methods."
_NOT_FIXED = re.compile(r"\w*initializers")  # where values begin


def is_kept(folder: pathlib.Path) -> bool:
  """Whether a configuration is kept in this folder."""
  return any((folder / name).is_file() for name in (FLAT, GIN))


def read(
  folder: pathlib.Path, bindings: Sequence[str], *, allow_imports: str = ""
) -> gin_scan.Scan:
  """The configuration that is kept in a folder, with the bindings of a command line.

  Nothing that stands there is run or imported: names mean what this version lists.

  Raises:
    ConfigError: it is of another version, or has names that this version does not list.
  """
  # Foreign: the directory may be somebody else's, so its text binds values and includes nothing.
  reader = gin_scan.Reader(allow=gin_config.permitted(allow_imports), foreign=True)
  flat = folder / FLAT
  text = gin_files.file_text(str(flat)) if flat.is_file() else ""
  if not text.startswith(_HEADER):
    flat = folder / GIN  # of an earlier version
    if not flat.is_file():
      raise ConfigError(f"{folder} has no {GIN}; name the recipe with --gin_file.")
  reader.files.append(str(flat))
  _read_text(reader, gin_files.file_text(str(flat)), str(flat))
  scanned = reader.scan(bindings, roots=[str(flat)], check=True)
  if EXPERIMENT in scanned.macros:
    gin_effect.check(dataclasses.replace(scanned, roots=()))  # of the command line's bindings
  return scanned


def _read_text(reader: gin_scan.Reader, text: str, path: str) -> None:
  if text.startswith(_HEADER):
    first, *rest = text.splitlines()
    version = first.removeprefix(_HEADER).partition(":")[0]
    if version != str(_VERSION):
      raise ConfigError(
        f"{path} is of version {version[:20]!r}, and this promot_jax reads version {_VERSION}. Use the "
        "version that wrote it, or the recipe with --gin_file."
      )
    for line in rest[:1]:
      for module in line.removeprefix(_MODULES).split(", ") if line.startswith(_MODULES) else ():
        reader.permit(module, path)
  reader.read_text(text, path)


def record_text(scanned: gin_scan.Scan) -> str:
  """What `read` reads: macros, then bindings, in the order in which they were given."""
  lines = [f"{_HEADER}{_VERSION}: plain values, read again by promot eval, infer and convert"]
  if scanned.modules:
    lines.append(_MODULES + ", ".join(scanned.modules))
  for binding in (*scanned.macros.values(), *scanned.bindings.values()):
    lines.append(f"{binding.name} = {gin_values.text(binding.value)}")
  return "\n".join(lines) + "\n"


def flat_text(scanned: gin_scan.Scan) -> str:
  """One `name = value` a line, macros resolved, for people."""
  return "".join(f"{name} = {value}\n" for name, value in scanned.flat().items())


def changes(scanned: gin_scan.Scan, folder: pathlib.Path, *, allow_change: bool) -> list[str]:
  """Lines that say what differs from the configuration that a folder was started with.

  Raises:
    ConfigError: a binding changed that a started run cannot change, and `allow_change` is off.
  """
  file = folder / FLAT
  # A start that was refused or stopped before its first result binds nobody.
  if not file.is_file() or not _has_results(folder):
    return []
  earlier, now = _compared(gin_files.file_text(str(file)), str(file), scanned)
  return difference(earlier, now, allow_change=allow_change)


def difference(old: dict[str, str], new: dict[str, str], *, allow_change: bool = True) -> list[str]:
  """'name: old -> new' of every binding that changed between two `Scan.flat()`s.

  Raises:
    ConfigError: a binding changed that a started run cannot change, and `allow_change` is off.
  """
  changed = [
    f"{name}: {old.get(name, 'not set')} -> {new.get(name, 'not set')}"
    for name in sorted({*old, *new})
    # A directory may be moved or mounted elsewhere: its own name is no change.
    if old.get(name) != new.get(name) and not name.endswith("model_dir")
  ]
  fixed = [line for line in changed if _is_fixed(line.partition(": ")[0])]
  if fixed and not allow_change:
    raise ConfigError(
      "this model directory was started with another configuration: "
      + "; ".join(fixed)
      + ". Use another --model_dir, or --allow_config_change if the mixture is intended."
    )
  return changed


def _is_fixed(name: str) -> bool:
  """Whether a started run cannot go on with another value of 'scope/module.Name.parameter'."""
  module = name.rpartition("/")[2].partition(".")[0]
  # By the module's place: a method that is added later is fixed without an entry here.
  of_method = recipe_values.modules().get(module, "").startswith(_METHODS)
  return _FIXED.search(name) is not None or (of_method and not _NOT_FIXED.fullmatch(module))


def _compared(
  text: str, path: str, scanned: gin_scan.Scan
) -> tuple[dict[str, str], dict[str, str]]:
  """Bindings of a flat file of this version or an earlier one, and those of `scanned` in its form."""
  reader = gin_scan.Reader(allow=scanned.allow, foreign=True)
  try:
    _read_text(reader, text, path)
    earlier = reader.scan([], roots=[path], check=False)
  except ConfigError:
    if text.startswith(_HEADER):
      raise
    # An earlier version wrote names by their imports; what is not read again is compared as written.
    written = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    return written, scanned.flat(alike=True)
  if EXPERIMENT in earlier.macros and EXPERIMENT in scanned.macros:
    return _effective(earlier), _effective(scanned)
  return earlier.flat(alike=True), scanned.flat(alike=True)  # a version that kept no macros


def _effective(scanned: gin_scan.Scan) -> dict[str, str]:
  """`Scan.flat` without what the run does not ask for: an overlay leaves idle bindings behind."""
  flat, used = scanned.flat(alike=True), gin_effect.reached(scanned).used
  return {each.name: flat[each.name] for key, each in scanned.bindings.items() if key in used}


def _has_results(folder: pathlib.Path) -> bool:
  """Whether a start here left anything that another configuration could not go on with."""
  kept = ("stages/*/*", "evaluation/*/*", "*/stages/*/*", "*/evaluation/*/*")
  return any(next(folder.glob(pattern), None) for pattern in kept)


def write(
  folder: pathlib.Path, scanned: gin_scan.Scan, *, command: Sequence[str], changed: Sequence[str]
) -> None:
  """Keeps the configuration of an accepted start: a line in the history, then all files at once.

  Args:
    folder: the model directory.
    command: the arguments of the command line.
    changed: what differs from the start before, see `changes`.

  Raises:
    CannotWrite: the disk refused; the files are as they were.
  """
  config, operative = gin_config.texts()
  texts = {GIN: config, OPERATIVE: operative, FLAT: record_text(scanned)}
  start = {
    "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    "promot": __version__,
    "command": list(command),
    "changed": list(changed),
    "configuration": scanned.flat(),
  }
  temporary = {name: folder / f".{name}.tmp-{os.getpid()}" for name in texts}
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
      temporary[name].unlink(missing_ok=True)  # a link there leads out of the directory
      with temporary[name].open("x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        # On the disk before they are renamed: after a loss of power a new name would lead to an
        # empty file.
        file.flush()
        os.fsync(file.fileno())
    _append(folder / STARTS, without_secrets(json.dumps(start)))
    for name in texts:  # the one that is read again comes last
      temporary[name].replace(folder / name)
  except OSError as error:
    raise CannotWrite(
      f"the configuration cannot be written to {folder}: {error.strerror or error}; check the path, its "
      "permissions and the free space."
    ) from error
  finally:
    for path in temporary.values():
      path.unlink(missing_ok=True)


def _append(path: pathlib.Path, line: str) -> None:
  """Adds a line; one torn by a kill before it is ended first."""
  torn = path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
  flags = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
  )  # a link leads out of the directory
  with open(os.open(path, flags, 0o644), "a", encoding="utf-8") as file:
    file.write(("\n" if torn else "") + line + "\n")
    file.flush()
    os.fsync(file.fileno())
