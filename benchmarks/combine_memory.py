"""Peak host memory of `promot combine` on two Hugging Face checkpoints, against the size of one.

  python benchmarks/combine_memory.py --gigabytes 1
  python benchmarks/combine_memory.py --gigabytes 1 --operation ties

Writes two synthetic T5 1.1 of about that size (float32) as `checkpoint_memory.py` does, combines them in a
process of its own and watches its anonymous memory.  The limit is one network; exit code 1 if it is passed.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from checkpoint_memory import anonymous, make


def watch(command: list[str]) -> tuple[int, float]:
  """(largest anonymous memory in bytes, seconds) of a command that has to succeed."""
  start, peak = time.monotonic(), 0
  with subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}) as process:
    while process.poll() is None:
      peak = max(peak, anonymous(process.pid))
      time.sleep(0.01)
    if process.returncode:
      raise SystemExit(f"promot combine ended with {process.returncode}")
  return peak, time.monotonic() - start


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--gigabytes", type=float, default=1.0, help="of one network (default 1)")
  parser.add_argument("--operation", default="task_arithmetic", help="of gin/operations")
  parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    place = pathlib.Path(folder)
    # One and the same twice: what is read does not depend on the values.
    network = make(place, options.gigabytes, "float32")
    size = sum(file.stat().st_size for file in network.iterdir())
    combine = [sys.executable, "-m", "promot_jax.cli.combine", str(network), str(network)]
    flags = [str(place / "out"), f"--operation={options.operation}", "--quiet"]
    if options.operation != "soup":
      flags.append(f"--base={network}")
    peak, seconds = watch([*combine, *flags])
  print(
    f"{options.operation} of {3 - (options.operation == 'soup')} networks of {size / 1e9:.2f} GB: peak"
    f" {peak / 1e9:.2f} GB of anonymous memory = {peak / size:.2f} networks, {seconds:.0f} s"
  )
  if peak > size:
    raise SystemExit(1)


if __name__ == "__main__":
  main()
