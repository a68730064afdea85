"""`promot report`: tables and plots of finished runs.  Imports neither JAX nor TensorFlow."""

import json
import pathlib
import sys

from promot_jax.cli.flags import Flags


def run(flags: Flags) -> int:
  """Runs `promot report`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  from promot_jax.evaluation import report

  values = flags.values
  output = pathlib.Path(values.output or values.runs[0])
  if not output.suffix:
    output = output / "report"
  made, written = report.write(values.runs, output)
  if values.json:
    print(json.dumps(report.as_json(made)))
  else:
    print(report.text(made))
  if not values.quiet:
    print("written: " + ", ".join(str(path) for path in written), file=sys.stderr)
  return 0


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["report", *sys.argv[1:]]))
