"""Freed memory stays in the process, unless somebody else decides about it."""

import os
import subprocess
import sys

import pytest

from promot_jax.cli import allocator

# Buffers of 3 MB, all freed after each round, as a training step does it.
ROUNDS = """
import resource, sys
import numpy as np
from promot_jax.cli import allocator
if sys.argv[1] == "keep":
  assert allocator.keep_memory()

def one_round():
  buffers = [np.empty(3 << 20, np.uint8) for _ in range(8)]
  for buffer in buffers:
    buffer.fill(1)

one_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
  one_round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about glibc")
def test_buffers_that_are_freed_and_allocated_again_cause_no_page_faults():
  environment = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
  } | {"JAX_PLATFORMS": "cpu"}

  def faults(mode: str) -> int:
    command = [sys.executable, "-c", ROUNDS, mode]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return int(done.stdout)

  assert faults("keep") < 100 < 10_000 < faults("leave")


@pytest.mark.parametrize(
  "name, value", [("JAX_PLATFORMS", "cuda,cpu"), ("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "")]
)
def test_accelerators_and_settings_of_the_user_are_left_alone(name, value, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setenv(name, value)
  monkeypatch.setattr(allocator.ctypes, "CDLL", None)  # calling it would raise
  assert not allocator.keep_memory()
