"""Which methods there are: those that the modules of this package list for recipes.

A file in `promot_jax/methods` is enough for a new one: nothing else has to name it.  The other
modules are imported when they are asked for.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import promot_jax.methods as package
from promot_jax.methods.base import Method

LIST = "RECIPE_VALUES"


def modules() -> list[str]:
  """Full names of the modules of the package, sorted."""
  return sorted(
    found.name for found in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
  )


def kinds() -> dict[str, type[Method]]:
  """Class of every method by its name, in the order of the modules."""
  return {kind.__name__: kind for kind in _listed() if issubclass(kind, Method)}


def _listed() -> Iterator[type]:
  for name in modules():
    module = importlib.import_module(name)
    for listed in getattr(module, LIST, ()):
      value = getattr(module, listed)
      # Classes where they are defined: a module may list another one's initializers, too.
      if isinstance(value, type) and value.__module__ == name:
        yield value
