"""SIGTERM and SIGINT: finish the step and save; a second one stops at once.

The first signal only sets a flag, which the training loop asks after each step.  A thread watches
too, because Python runs its handlers between bytecodes only and a compilation may take minutes: it
ends the process when the grace time is over, when a second signal comes, or when SIGTERM arrives
while there is nothing to save.  Ending a process so is safe: checkpoints are renamed into place
whole, and the system drops the lease.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from promot_jax import errors

CAUGHT = (signal.SIGTERM, signal.SIGINT)


class Stop:
  """Whether a stop was requested, and what may be lost by stopping now.

  Attributes:
    requested: name of the signal, or None.
    nothing_to_save: True while stopping at once loses no work (set by whoever works).
  """

  def __init__(self) -> None:
    self.requested: str | None = None
    self.nothing_to_save = False


_active: Stop | None = None


@contextlib.contextmanager
def catch(
  *,
  report: Callable[[str], None] = lambda text: None,
  grace_seconds: float | None = 120.0,
  at_once: bool = True,
) -> Iterator[Stop]:
  """Catches the signals for the body and gives the `Stop` to ask.

  Nested uses share the outer one.  Outside the main thread, where Python cannot catch signals, the
  `Stop` is never requested.

  Args:
    report: receives a line when a signal arrives.
    grace_seconds: time from SIGTERM to the end of the process, saved or not; None waits for ever.
    at_once: whether SIGTERM ends the process where there is nothing to save.  Not where others wait
      for it: they learn of the signal with the next step, and all end together.
  """
  global _active
  if _active is not None:
    yield _active
    return
  stop = Stop()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  reading, writing = socket.socketpair()
  writing.setblocking(False)
  former = {number: signal.signal(number, _noted) for number in CAUGHT}
  former_descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
  watcher = threading.Thread(
    target=_watch,
    args=(reading, stop, report, grace_seconds, at_once),
    name="signals",
    daemon=True,
  )
  watcher.start()
  _active = stop
  try:
    yield stop
  finally:
    _active = None
    signal.set_wakeup_fd(former_descriptor)
    for number, handler in former.items():
      signal.signal(number, handler)
    writing.close()
    watcher.join(timeout=5)
    reading.close()


def _noted(number: int, frame: object) -> None:
  """Does nothing: the watching thread has the signal already."""


def _watch(
  reading: socket.socket,
  stop: Stop,
  report: Callable[[str], None],
  grace_seconds: float | None,
  at_once: bool,
) -> None:
  """Receives one byte a signal; ends with the connection."""
  deadline: float | None = None
  while True:
    reading.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))
    try:
      numbers = reading.recv(16)
    except TimeoutError:
      _end(report, "the grace time is over: stopping without saving", errors.Preempted.exit_code)
      return
    except OSError:
      return
    if not numbers:
      return
    for number in numbers:
      if number not in CAUGHT:
        continue
      name = signal.Signals(number).name
      if stop.requested is not None:
        _end(report, f"second signal ({name}): stopping at once", 128 + number)
      stop.requested = name
      if number == signal.SIGTERM:
        if stop.nothing_to_save and at_once:
          _end(report, "SIGTERM: stopped; there was nothing to save", errors.Preempted.exit_code)
        if grace_seconds is not None:
          deadline = time.monotonic() + grace_seconds
      report(f"{name}: finishing the step, then saving; a second signal stops at once")


def _end(report: Callable[[str], None], text: str, code: int) -> None:
  """Ends the process from whatever thread, also while another one is compiling."""
  try:
    report(text)
  finally:
    os._exit(code)
