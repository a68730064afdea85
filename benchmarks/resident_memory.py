"""Peak resident memory of training steps, in a process of its own for each method and side.

Counted is the largest anonymous memory of the process while it runs steps, beyond what it had before
the first array.  Compiled code and the allocator's waste are in it.  It is the only figure that there
is of torch; of our programs XLA says more exactly what they need.
"""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import checkpoint_memory

STEPS = 3


def measure(case: str, method: str, side: str, *, threads: int) -> int:
  """Bytes, measured by this file in a process.

  `side` is 'ours' (a method with its recipe's settings), 'same_work' (ours as PEFT has it) or
  'theirs' (PEFT's).

  Raises:
    RuntimeError: the process failed.
  """
  command = [sys.executable, __file__, case, method, side, str(threads)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise RuntimeError(f"Measuring {method} of {case} failed:\n{done.stderr[-2000:]}")
  return int(done.stdout.splitlines()[-1])


def _measured(case_name: str, method: str, side: str, threads: int) -> int:
  import side_by_side

  # isort: split
  import jax
  import torch
  import tuned_models

  torch.set_num_threads(threads)
  case = side_by_side.CASES[case_name]
  batch = side_by_side.make_batch(case, 0)
  jax.block_until_ready(jax.numpy.zeros(3) + 1)  # the backend is up
  before = _anonymous()
  weights = side_by_side.initial_weights(case.config)
  if side == "theirs":
    step = tuned_models.their_step(case, weights, method)
    for leaf in step.model.parameters():  # they may be pages of the file
      leaf.data = leaf.data.clone()
  else:
    chosen = tuned_models.methods(case) if side == "ours" else tuned_models.same_works(case)
    step = tuned_models.our_step(case, weights, chosen[method])
  del weights
  step(batch)  # compiles, and makes what is made once
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)  # what building and compiling left behind
  return _peak(lambda: step(batch)) - before


def _peak(run: Callable[[], object]) -> int:
  """The largest anonymous memory in bytes while `run` is called a few times."""
  done = threading.Event()
  found = [_anonymous()]

  def watch() -> None:
    while not done.wait(0.002):
      found.append(_anonymous())

  watcher = threading.Thread(target=watch)
  watcher.start()
  for _ in range(STEPS):
    run()
  done.set()
  watcher.join()
  return max(found)


def _anonymous() -> int:
  return checkpoint_memory.anonymous(os.getpid())


if __name__ == "__main__":
  case_name, method_name, side_name, thread_count = sys.argv[1:]
  print(_measured(case_name, method_name, side_name, int(thread_count)))
