"""Batches prepared in a thread while the device computes."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

HostBatch = Mapping[str, np.ndarray]


class Prepared(NamedTuple):
  """A batch on the device, the step it is for, and its number of real tokens."""

  step: int
  batch: dict[str, Any]
  tokens: int


class Prefetcher:
  """Iterates over the batches of steps `first` to `last` - 1, a few steps ahead.

  An error in the thread is raised by the `next` that would have returned its batch.  Use as a
  context manager, or call `close`, so that the thread ends.
  """

  def __init__(
    self,
    batches: Callable[[int], HostBatch],
    *,
    first: int,
    last: int,
    place: Callable[[HostBatch], dict[str, Any]],
    depth: int = 2,
  ) -> None:
    """Starts the thread.

    Args:
      batches: random access: the batch of a step (0 is the first), a function of the step only.
      first: step of the first batch.
      last: step after the last batch.
      place: puts a batch on the devices.
      depth: batches ready at most.
    """
    self._queue: queue.Queue[Prepared | Exception | None] = queue.Queue(depth)
    self._closed = threading.Event()
    # A daemon: a reader that hangs must not keep a process alive that wants to end.
    self._thread = threading.Thread(
      target=self._run, args=(batches, first, last, place), name="prefetch", daemon=True
    )
    self._thread.start()

  def __iter__(self) -> "Prefetcher":
    return self

  def __next__(self) -> Prepared:
    item = self._queue.get()
    if item is None or isinstance(item, Exception):
      self._queue.put(item)  # for any later call
      if item is None:
        raise StopIteration
      raise item
    return item

  def close(self) -> None:
    """Ends the thread; batches not taken are dropped."""
    # First the flag, then the places: a thread that waits for one is let go and sees the flag.
    self._closed.set()
    while True:
      try:
        self._queue.get_nowait()
      except queue.Empty:
        break
    self._thread.join(timeout=30)

  def __enter__(self) -> "Prefetcher":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _run(self, batches: Callable, first: int, last: int, place: Callable) -> None:
    try:
      for step in range(first, last):
        batch = batches(step)
        # Counted on the host's arrays: those on the device would have to come back for it.
        if not self._offer(Prepared(step, place(batch), count_tokens(batch))):
          return
      self._offer(None)
    # Handed over in its turn: batches that were ready before it are still trained on.
    except Exception as error:
      self._offer(error)

  def _offer(self, item: Prepared | Exception | None) -> bool:
    """Waits for a free place; False when closed meanwhile."""
    # With a time limit, as nobody may ever take from the queue again.
    while not self._closed.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        continue
    return False


def count_tokens(batch: HostBatch) -> int:
  """Real tokens of a batch: inputs that its mask shows (all, where it has none), targets with weight."""
  total = 0
  if "encoder_input_mask" in batch:
    total += int(np.count_nonzero(batch["encoder_input_mask"]))
  elif "encoder_input_tokens" in batch:
    total += batch["encoder_input_tokens"].size
  if "decoder_loss_weights" in batch:
    total += int(np.count_nonzero(batch["decoder_loss_weights"]))
  return total
