"""The package `tasks`, and no other module of that name.

`tasks` is a common name: a tasks.py in the working folder or on PYTHONPATH would be found first and run in
its place.  So the package is not searched for: it lies beside promot_jax, in a checkout and where it is
installed, and is loaded from there by path before anybody imports it by name.
"""

import importlib.util
import pathlib
import sys

from promot_jax.errors import ConfigError

NAME = "tasks"
FOLDER = pathlib.Path(__file__).resolve().parent.parent / NAME


def bind() -> None:
  """Makes `import tasks` mean our package in this process; its code is not run yet where it is new.

  Raises:
    ConfigError: another module of this name was imported before, or ours is not installed.
  """
  found = sys.modules.get(NAME)
  if found is not None:
    place = getattr(found, "__file__", None)
    if place is None or pathlib.Path(place).resolve().parent != FOLDER:
      raise ConfigError(
        f"another module named '{NAME}' was imported before ({place}), and promot_jax has a package of that "
        "name. Import promot_jax.experiments first, or give the other one another name."
      )
    return
  file = FOLDER / "__init__.py"
  spec = importlib.util.spec_from_file_location(
    NAME, file, submodule_search_locations=[str(FOLDER)]
  )
  if spec is None or spec.loader is None or not file.is_file():
    raise ConfigError(
      f"promot_jax's package '{NAME}' is not in {FOLDER.parent}. Install promot_jax again."
    )
  module = importlib.util.module_from_spec(spec)
  # Before it runs: its own files import each other by this name.
  sys.modules[NAME] = module
  try:
    spec.loader.exec_module(module)
  # Half-loaded, the next import would take it for whole.
  except BaseException:
    sys.modules.pop(NAME, None)
    raise
