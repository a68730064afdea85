"""Keeps freed memory in the process, for computing on the CPU.

XLA allocates the temporary buffers of every training step anew.  glibc gives such large blocks back
to the operating system when they are freed, so each step pays for page faults on all of them: 47,000
faults of a step of the micro model (batch 64) became 0, and 0.41 s of CPU time became 0.32 s.  The
process holds its peak (there 950 instead of 800 MB) until it ends, which is why nothing is changed
where an accelerator computes and the host only reads data.
"""

import ctypes
import glob
import os
import sys

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_SETTINGS = (
  (_M_ARENA_MAX, 1),  # one heap: what one thread freed, the next one takes
  (_M_MMAP_MAX, 0),  # no mapping of its own for a large block, which free would remove
  (_M_TRIM_THRESHOLD, 2**31 - 1),  # the largest that mallopt takes
)
_OF_THE_USER = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*")


def keep_memory() -> bool:
  """Sets glibc's malloc so that freed blocks are used again; returns whether it did.

  Nothing is done on other systems, beside an accelerator, or if the user has tuned malloc.
  """
  if not sys.platform.startswith("linux") or not _computes_on_cpu():
    return False
  if any(name in os.environ for name in _OF_THE_USER):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):  # another C library
    return False
  taken = [mallopt(parameter, value) for parameter, value in _SETTINGS]
  return all(taken)


def _computes_on_cpu() -> bool:
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms:
    return platforms.split(",")[0] == "cpu"
  return not any(glob.glob(pattern) for pattern in _ACCELERATORS)
