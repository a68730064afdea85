"""`promot report`: tables and plots of finished runs.  Imports neither JAX nor TensorFlow."""

import json
import os
import pathlib
import sys
from collections.abc import Sequence

from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError, DataError
from promot_jax.printable import visible

_NAMED = 10  # names in a message


def run(flags: Flags) -> int:
  """Runs `promot report`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  from promot_jax.evaluation import report

  values = flags.values
  folders = _with_runs(values.runs)
  output = pathlib.Path(values.output or folders[0])
  if not output.suffix:
    output = output / "report"
  made, written = report.write(folders, output)
  if values.json:
    show(json.dumps(report.as_json(made)))
  else:
    show(report.text(made))
  if not values.quiet:
    show("written: " + ", ".join(str(path) for path in written), file=sys.stderr)
  return 0


def _with_runs(named: Sequence[str]) -> list[str]:
  """The named folders that hold evaluated models; of several, the others are left out and told.

  `runs/*/*` of a shell names everything in the model directories: files, checkpoints, logs.
  """
  for name in named:
    if not os.path.lexists(name):  # a link that leads nowhere came from a shell's *
      raise ConfigError(f"'{name}' does not exist; name model directories.")
  found = [name for name in named if next(pathlib.Path(name).rglob("run.json"), None)]
  if not found:
    kind = "no folder" if all(os.path.isfile(name) for name in named) else "no evaluated model"
    raise DataError(
      f"There is {kind} among {', '.join(visible(name) for name in named[:_NAMED])}; name the"
      " directories that promot train or promot eval wrote."
    )
  left = [visible(name) for name in named if name not in found]
  if left:
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    show(f"left out, no evaluated model: {', '.join(left[:_NAMED])}{more}", file=sys.stderr)
  return found


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["report", *sys.argv[1:]]))
