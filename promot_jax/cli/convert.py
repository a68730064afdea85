"""`promot convert`: a checkpoint from one format into another, complete or not at all."""

import json
import math
import pathlib
import sys

from promot_jax.cli import weights_sources
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError


def run(flags: Flags) -> int:
  """Runs `promot convert`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  output = require_new(values)  # looked at first, since a checkpoint may take minutes to read

  from promot_jax.conversion import formats

  weights = weights_sources.opened(flags, values.source).weights
  if not formats.is_of_method(values.to):
    formats.check(weights, finite=not values.allow_nan)
  target = formats.Target(
    to=values.to,
    dtype=values.dtype,
    vocabulary=values.vocab_size,
    step=values.step,
    t5x_layout=values.t5x_layout,
    scanned=values.scanned,
    task=values.task,
    base_model=values.base_model,
  )
  written = formats.write(weights, output, target)
  _tell(weights, written, values)
  return 0


def require_new(values) -> pathlib.Path:
  """The path to write to.

  Raises:
    ConfigError: there is something already.
  """
  output = pathlib.Path(values.output)
  # T5X's folder holds a folder for each step.
  place = output / f"checkpoint_{values.step}" if values.to == "t5x" else output
  if output.is_file() or (place.is_dir() and any(place.iterdir())):
    raise ConfigError(f"OUTPUT '{place}' exists and is not overwritten; name another.")
  return output


def _tell(weights, written: pathlib.Path, values) -> None:
  leaves = weights.backbone if weights.trained is None else weights.trained.leaves
  summary = {
    "output": str(written),
    "format": values.to,
    "backbone": type(weights.config).__name__ if weights.config is not None else None,
    "arrays": len(leaves),
    "parameters": sum(math.prod(leaf.shape) for leaf in leaves.values()),
    "dtype": values.dtype or "as stored",
  }
  if values.json:
    show(json.dumps(summary))
    return
  show(
    f"{written}: {values.to}, {summary['arrays']} arrays, {summary['parameters']:,} parameters,"
    f" {summary['dtype']}"
  )
  # On stderr, so that --json alone is on standard output.
  if weights.note and not values.quiet:
    show(f"note: {weights.note}", file=sys.stderr)
  if weights.prompt and values.to in ("hf", "npz") and not values.quiet:
    name, leaf = next(iter(weights.prompt.items()))
    show(
      f"note: the prompt ({name} {list(leaf.shape)}) is no part of it; write it with --to=prompt or"
      " --to=peft",
      file=sys.stderr,
    )


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["convert", *sys.argv[1:]]))
