"""Which methods there are: those that the modules of this package list for recipes.

A file in `promot_jax/methods` is enough for a new one: nothing else has to name it.  The modules are
imported when they are asked for, so importing this one costs nothing.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import promot_jax.methods as package

LIST = "RECIPE_VALUES"


def modules() -> list[str]:
  """Full names of the modules of the package, sorted."""
  return sorted(
    found.name for found in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
  )


def kinds() -> dict[str, type]:
  """Class of every method by its name, in the order of the modules."""
  return {kind.__name__: kind for kind in _listed() if _is_method(kind)}


def _listed() -> Iterator[type]:
  for name in modules():
    module = importlib.import_module(name)
    for listed in getattr(module, LIST, ()):
      value = getattr(module, listed)
      if isinstance(value, type) and value.__module__ == name:
        yield value


def _is_method(kind: type) -> bool:
  return all(hasattr(kind, name) for name in ("parameters", "attach", "detach"))
