"""Templates of the built-in world: files of promptsource's format, laid out as its folder `templates/`."""

import pathlib

RECIPE_VALUES = ("folder",)


def folder() -> str:
  """Path of the folder."""
  return str(pathlib.Path(__file__).with_name("templates"))
