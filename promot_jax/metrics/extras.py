"""What a metric needs beyond the base installation, asked for in one sentence where it is absent."""

import importlib
import pathlib
import shutil
import types

from promot_jax import errors


def library(module: str, *, of: str, install: str) -> types.ModuleType:
  """The imported module.

  Args:
    module: dotted name.
    of: the metric that needs it, as a user names it.
    install: what to write behind `pip install`.

  Raises:
    ConfigError: it is not installed, or what it imports itself is not.
  """
  try:
    # On use: most tasks need none of these packages, whose import may take seconds.
    return importlib.import_module(module)
  except ImportError as error:
    raise errors.ConfigError(
      f"The metric '{of}' needs the package {module.split('.')[0]}, which cannot be imported "
      f"({error}): pip install {install}"
    ) from None


def beside(module: types.ModuleType, name: str) -> pathlib.Path:
  """A file that a package keeps beside one of its modules."""
  return pathlib.Path(str(module.__file__)).with_name(name)


def program(name: str, *, of: str, advice: str) -> str:
  """Path of an executable.

  Raises:
    ConfigError: there is none of that name on the PATH.
  """
  found = shutil.which(name)
  if found is None:
    raise errors.ConfigError(
      f"The metric '{of}' runs the program '{name}', which is not on the PATH: {advice}"
    )
  return found
