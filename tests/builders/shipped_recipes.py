"""The recipes of the checkout by their names, read and built as commands do it."""

import pathlib

from promot_jax.cli import gin_config

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "gin"
# What a recipe leaves to its user, by the beginning of its name.
_FILES = ("DATA_DIR = '.'",)
NEEDED = {
  "promot_templates": ("TEMPLATES_TASK = 'rte'",),
  "comparison_prefix_e2e": _FILES,
  "comparison_prefix_webnlg": _FILES,
  "comparison_prefix_dart": _FILES,
  "comparison_prefix_ablations": _FILES,
  "comparison_low_data_e2e": _FILES,
  "comparison_initialisation": _FILES,
  "comparison_squad_mrqa": _FILES,
  # One share of the paper's seven is looked at, as each is a row.
  **dict.fromkeys(
    (f"comparison_cocktail_{data}" for data in ("webnlg", "xsum", "nq_open")),
    (*_FILES, "LIGHT_WEIGHTS = [0.5]"),
  ),
}


def read(*names: str, bindings=()):
  needed = [line for start, lines in NEEDED.items() if names[0].startswith(start) for line in lines]
  return gin_config.read([str(FOLDER / name) for name in names], [*needed, *bindings])


def build(name: str, *bindings: str):
  return gin_config.build(read(name, bindings=bindings))


def small(name: str) -> str:
  return name.removesuffix(".gin") + "_micro.gin"
