"""Peak host memory while a Hugging Face checkpoint is loaded, against the parameters it becomes.

  python benchmarks/checkpoint_memory.py --gigabytes 2
  python benchmarks/checkpoint_memory.py --gigabytes 2 --stored bfloat16 --devices 8 --scanned

Writes a synthetic T5 1.1 of about that size (float32) to a temporary folder, loads it in a process of
its own and watches that process from outside.  Counted is anonymous memory (RssAnon): pages of the
memory-mapped file can be dropped by the system at any time.  On a CPU the devices' shards are host
memory too, so the limit is the shards + 2.5 times the largest tensor; exit code 1 if it is passed.
"""

import argparse
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

WIDTH, HEADS, MLP, VOCABULARY = 2048, 32, 5120, 32_128  # T5 1.1 XL
ALLOWED = 2.5  # of the largest tensor, beyond the shards


def config_of(gigabytes: float, *, scanned: bool):
  """A T5 of XL's widths with as many layers as the size asks for."""
  from promot_jax.models import T5Config

  layers = 7 * WIDTH * WIDTH * 2 + 6 * WIDTH * MLP  # one of each stack, about
  count = max(1, round((gigabytes * 1e9 / 4 - 2 * VOCABULARY * WIDTH) / layers))
  return T5Config(
    vocab_size=VOCABULARY,
    width=WIDTH,
    heads=HEADS,
    head_width=WIDTH // HEADS,
    mlp_width=MLP,
    encoder_layers=count,
    decoder_layers=count,
    scan_layers=scanned,
  )


def make(folder: pathlib.Path, config, stored: str) -> pathlib.Path:
  """Writes the checkpoint; the same megabyte of random values again and again."""
  import numpy as np
  from flax import nnx

  from promot_jax import paths
  from promot_jax.checkpoints import huggingface
  from promot_jax.checkpoints.stored import StoredArray
  from promot_jax.models import T5

  block = np.random.default_rng(0).standard_normal(2**18).astype(np.float32)
  leaves = {
    name: StoredArray(
      name=name,
      shape=leaf.shape,
      dtype=np.dtype(np.float32),
      read=lambda shape=leaf.shape: np.resize(block, shape),
    )
    for name, leaf in paths.named_leaves(nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))).items()
  }
  return huggingface.write_hf(folder / "hf", leaves, config, dtype=stored)


def load(folder: str, options: argparse.Namespace) -> None:
  """The watched process: says 'ready' before the first array is read, and 'done' with the sizes."""
  import jax
  import numpy as np
  from flax import nnx

  from promot_jax import partitioning, paths
  from promot_jax.checkpoints import huggingface, restore
  from promot_jax.models import T5

  config = config_of(options.gigabytes, scanned=options.scanned)
  model = nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))
  if options.devices > 1:
    model = partitioning.abstract(model, partitioning.make_mesh(data=1, model=options.devices))
  leaves = huggingface.open_hf(folder, config)
  jax.block_until_ready(jax.numpy.zeros(3) + 1)  # the backend is up
  print("ready", flush=True)
  sys.stdin.readline()
  start = time.monotonic()
  restored = restore.restore_into(model, leaves, finite=True)
  arrays = paths.named_leaves(restored).values()
  jax.block_until_ready(list(arrays))
  seconds = time.monotonic() - start
  shards = sum(shard.data.nbytes for array in arrays for shard in array.addressable_shards)
  largest = max(
    math.prod(leaf.shape) * np.dtype(np.float32).itemsize
    for leaf in (paths.named_leaves(model) if options.scanned else leaves).values()
  )
  print(f"done {shards} {largest} {seconds}", flush=True)
  sys.stdin.readline()


def watch(options: argparse.Namespace, folder: pathlib.Path) -> bool:
  """Runs `load` in a process and prints its peak; whether it stayed below the limit."""
  command = [sys.executable, __file__, "--load", str(folder), *sys.argv[1:]]
  flag = f"--xla_force_host_platform_device_count={options.devices}"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
  with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
    assert process.stdin is not None and process.stdout is not None
    if process.stdout.readline().strip() != "ready":
      raise SystemExit("the loading process failed")
    os.set_blocking(process.stdout.fileno(), False)
    before = peak = anonymous(process.pid)
    process.stdin.write("\n")
    process.stdin.flush()
    line = ""
    while not line and process.poll() is None:
      peak = max(peak, anonymous(process.pid))
      time.sleep(0.002)
      line = process.stdout.readline()
    process.communicate("\n")
  _, shards, largest, seconds = line.split()
  used, limit = peak - before, int(shards) + ALLOWED * int(largest)
  beyond = (used - int(shards)) / int(largest)
  print(
    f"shards {int(shards) / 1e9:.2f} GB, largest tensor {int(largest) / 1e9:.2f} GB, peak"
    f" {used / 1e9:.2f} GB = shards + {beyond:.2f} x largest (allowed {ALLOWED}), {float(seconds):.1f} s"
  )
  return used < limit


def anonymous(pid: int) -> int:
  """Bytes of memory of a process that no file stands behind."""
  try:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
  except OSError:
    return 0
  found = [line for line in status.splitlines() if line.startswith("RssAnon:")]
  return int(found[0].split()[1]) * 1024 if found else 0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--gigabytes", type=float, default=2.0, help="size in float32 (default 2)")
  parser.add_argument("--stored", default="float32", choices=["float32", "bfloat16", "float16"])
  parser.add_argument(
    "--devices", type=int, default=1, help="CPU devices along 'model' (default 1)"
  )
  parser.add_argument("--scanned", action="store_true", help="stack the layers while loading")
  parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
  parser.add_argument("--load", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.load:
    load(options.load, options)
    return
  with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    place = make(pathlib.Path(folder), config_of(options.gigabytes, scanned=False), options.stored)
    size = sum(file.stat().st_size for file in place.iterdir())
    print(
      f"{size / 1e9:.2f} GB of {options.stored} in {len(list(place.iterdir()))} files", flush=True
    )
    if not watch(options, place):
      raise SystemExit(1)


if __name__ == "__main__":
  main()
