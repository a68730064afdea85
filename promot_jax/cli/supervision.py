"""A process that only waits for the one that works, so that the last words are ours.

Where another process of a run over several hosts is lost, JAX's C++ ends this one by SIGABRT, and no
`except` runs.  The waiting process imports nothing, passes signals on, and turns such an end into a
sentence and an exit code that a launcher can act on.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from promot_jax.cli import failures
from promot_jax.errors import PeerLost, Preempted, PromotError
from promot_jax.signals import Stop

_WORKS = (
  "PROMOT_JAX_SUPERVISED"  # number of the waiting process, in the environment of the working one
)
_PR_SET_PDEATHSIG = 1


class Killed(PromotError):
  """The system killed the working process."""

  exit_code = 128 + signal.SIGKILL


def is_worker() -> bool:
  """Whether this process was started by `run`."""
  return os.environ.get(_WORKS) == str(os.getppid())


def run(arguments: Sequence[str], stop: Stop) -> int:
  """Runs the command line in a process of its own and gives the exit code.

  Args:
    stop: of the signals that this process catches; they are passed on.
  """
  command = [sys.executable, "-m", "promot_jax.cli.main", *arguments]
  environment = {**os.environ, _WORKS: str(os.getpid())}
  # In a group of its own: a terminal sends Ctrl-C to this process alone, which passes it on once.
  worker = subprocess.Popen(command, env=environment, process_group=0)
  for number in stop.pass_on(worker.send_signal):
    worker.send_signal(number)
  return _code(worker.wait(), stop.passed)


def follow_parent() -> None:
  """Sends this process SIGTERM when the waiting one dies, so that it saves and ends too."""
  if sys.platform.startswith("linux"):
    # Linux alone tells a child of its parent's death.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _code(ended: int, passed: Sequence[int]) -> int:
  """The exit code for how the working process ended, which has spoken unless a signal ended it."""
  if ended >= 0:
    return ended
  if -ended in passed:  # before it could catch it
    return failures.say(
      Preempted(f"Stopped by {_name(-ended)} at its start. Repeat the same command to go on.")
    )
  if -ended == signal.SIGKILL:
    return failures.say(
      Killed(
        "the process was killed (SIGKILL), as the system does where memory runs out. What was saved"
        " is not lost: start the same command on all hosts again, with less of BATCH_SIZE if it was"
        " memory."
      )
    )
  return failures.say(
    PeerLost(
      f"another process of this run was lost, and JAX has ended this one ({_name(-ended)}; its words"
      " are above). What was saved is not lost: stop the others and start the same command on all"
      " hosts again; it goes on from the newest checkpoint."
    )
  )


def _name(number: int) -> str:
  try:
    return signal.Signals(number).name
  except ValueError:
    return f"signal {number}"
