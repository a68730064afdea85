"""Peak host memory of `promot combine` on two Hugging Face checkpoints, against the size of one.

  python benchmarks/combine_memory.py
  python benchmarks/combine_memory.py --layers 48 --operation ties

Writes a synthetic T5 1.1 of many small layers (float32) as `checkpoint_memory.py` does, combines it with itself
in a process of its own and watches its anonymous memory, libraries included.  The limit is one network; exit
code 1 if it is passed.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from checkpoint_memory import anonymous, make


def config_of(layers: int):
  """A T5 whose arrays are all small beside the whole."""
  from promot_jax.models import T5Config

  return T5Config(
    vocab_size=2048,
    width=512,
    heads=8,
    head_width=64,
    mlp_width=2048,
    encoder_layers=layers,
    decoder_layers=layers,
  )


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
  parser.add_argument(
    "--layers", type=int, default=24, help="of each stack; 24 are 0.8 GB a network (default 24)"
  )
  parser.add_argument("--operation", default="task_arithmetic", help="of gin/operations")
  parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    place = pathlib.Path(folder)
    # One and the same twice: what is read does not depend on the values.
    network = make(place, config_of(options.layers), "float32")
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
