"""Imports the modules in which a user registers tasks with seqio: what --task_module names.

Only the command line names them, never a gin file or a model directory: importing one runs it.
"""

import importlib
import importlib.util
import pathlib
import sys
from typing import Any

from promot_jax.errors import ConfigError


def load(values: Any) -> None:
  """Imports what --task_module names, and tells seqio where cached tasks lie.

  Raises:
    ConfigError: there is no such module or file, or it fails.
  """
  named = _split(getattr(values, "task_module", None))
  folders = _split(getattr(values, "seqio_additional_cache_dirs", None))
  # seqio brings TensorFlow, for which most commands need not wait.
  if not named and not folders:
    return
  from promot_jax.data.quiet import quiet

  with quiet():
    import seqio
  if folders:
    try:
      seqio.add_global_cache_dirs([str(pathlib.Path(each).expanduser()) for each in folders])
    except ValueError as error:
      raise ConfigError(f"--seqio_additional_cache_dirs={','.join(folders)}: {error}.") from error
  for name in named:
    _import(name)


def _import(name: str) -> None:
  file = name.endswith(".py") or "/" in name
  try:
    if file:
      _run(pathlib.Path(name).expanduser())
    else:
      _module(name)
  except ConfigError:
    raise
  except Exception as error:
    raise ConfigError(
      f"--task_module={name} failed when it was imported: {type(error).__name__}: {error}"
    ) from error


def _module(name: str) -> None:
  """A module of the working folder is found too, after everything that is installed."""
  with _also_searched(pathlib.Path.cwd()):
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as error:
      # What the module itself fails to import is its own failure, and told as such.
      if error.name is None or not f"{name}.".startswith(f"{error.name}."):
        raise
      raise ConfigError(
        f"--task_module={name}: there is no such module; of a file write its path, ./{name}.py."
      ) from None


def _run(file: pathlib.Path) -> None:
  """A file by its path, under a name that no module has; it may import its neighbours."""
  if not file.is_file():
    raise ConfigError(f"--task_module={file}: there is no such file.")
  name = f"task_module_{file.stem}"
  spec = importlib.util.spec_from_file_location(name, file)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--task_module={file}: it is no Python file.")
  module = importlib.util.module_from_spec(spec)
  # Before it runs, as an import does: dataclasses look their module up there.
  sys.modules[name] = module
  with _also_searched(file.resolve().parent):
    try:
      spec.loader.exec_module(module)
    except BaseException:
      sys.modules.pop(name, None)
      raise


class _also_searched:
  """A folder at the end of the places where modules are looked for."""

  def __init__(self, folder: pathlib.Path):
    self._folder = str(folder)

  def __enter__(self) -> None:
    sys.path.append(self._folder)

  def __exit__(self, *error: object) -> None:
    if self._folder in sys.path:
      # The last of equal entries is the one that was added.
      sys.path.reverse()
      sys.path.remove(self._folder)
      sys.path.reverse()


def _split(given: Any) -> list[str]:
  values = [given] if isinstance(given, str) else list(given or ())
  return [part.strip() for value in values for part in value.split(",") if part.strip()]
