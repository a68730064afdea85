"""What is to be done between two steps besides training: the same in all processes.

What only one of them knows (a signal, the clock) becomes a vote that travels with the step, so that all
stop and save after the same one.
"""

import enum

import jax

from promot_jax import hosts, signals


class Wish(enum.IntEnum):
  """Of several wishes the largest is done."""

  NOTHING = 0
  SAVE = 1  # a checkpoint is due by time
  STOP = 2  # a signal asks for it


class Wishes:
  """This process's wish; or with several processes, what all decided with the newest step read.

  Args:
    stop: whether a signal came to this process.
  """

  def __init__(self, stop: signals.Stop) -> None:
    self._stop = stop
    self._votes = hosts.Votes() if hosts.several() else None
    self._decided = Wish.NOTHING

  def now(self, *, overdue: bool) -> Wish:
    """What to do; `overdue` says whether a checkpoint is due by this process's clock."""
    return self._decided if self._votes else self._own(overdue)

  def vote(self, *, overdue: bool) -> jax.Array | int:
    """Starts a vote of all processes, to travel with a step and to be heard with its metrics."""
    return self._votes.cast(self._own(overdue)) if self._votes else Wish.NOTHING

  def hear(self, vote: jax.Array | int) -> None:
    """The outcome of a vote, whose step is done: nobody waits for it."""
    self._decided = Wish(int(vote))

  def saved(self) -> None:
    """A checkpoint was made, whatever asked for it."""
    # A STOP stays: it is over with the process only.
    if self._decided == Wish.SAVE:
      self._decided = Wish.NOTHING

  def _own(self, overdue: bool) -> Wish:
    if self._stop.requested:
      return Wish.STOP
    return Wish.SAVE if hosts.is_first() and overdue else Wish.NOTHING
