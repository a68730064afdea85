"""Which training records are shown before a query: a choice that never depends on order.

The demonstrations of a query follow from its text, the seed and the pool alone.  So they are the
same whatever the number of hosts, the order of reading or the number of examples, and the first
demonstration of the 4-shot prompt is the one of the 1-shot prompt.

seqio's FewshotDataSource zips two differently shuffled readings of the training split instead: the
query itself may then be among its own demonstrations, and a demonstration changes when the order
or the sharding does.
"""

import hashlib
from collections.abc import Iterable

from promot_jax import errors
from promot_jax.data import templates

# Only this many records from the start of a training split are ever demonstrations, so that the
# pool of a set with millions of records is read in seconds.
POOL_SIZE = 4096


class Demonstrations:
  """Solved training examples from which the ones for a query are drawn.

  Args:
    records: pairs of rendered input and raw target.  Those without a target are left out, and of
      several with the same input the first is kept.
  """

  def __init__(self, records: Iterable[tuple[str, str]]):
    # Equal inputs once, or one question would be shown twice.
    unique: dict[str, str] = {}
    for text, target in records:
      if target:
        unique.setdefault(text, target)
    self._pairs = list(unique.items())
    self._inputs = frozenset(unique)

  def __len__(self) -> int:
    return len(self._pairs)

  def choose(self, query: str, *, shots: int, seed: int) -> list[tuple[str, str]]:
    """`shots` different pairs for the rendered `query`, none of which is the query itself.

    Raises:
      DataError: the pool has fewer than `shots` other examples.
    """
    # The query itself may be in the pool: it is of the training split, or a copy of one that is.
    others = len(self._pairs) - (query in self._inputs)
    if others < shots:
      raise errors.DataError(
        f"{shots} demonstrations were asked for, but the training split offers only {others}"
        " labelled examples besides the query."
      )
    chosen: dict[str, str] = {}
    # Drawn one after the other, so that the first of four is the one of one.
    draw = 0
    # Drawn again where it is the query or was drawn before; there are enough, as was checked.
    while len(chosen) < shots:
      index = _number(f"{seed}:{draw}:{query}") % len(self._pairs)
      text, target = self._pairs[index]
      if text != query:
        chosen.setdefault(text, target)
      draw += 1
    return list(chosen.items())

  def prompt(
    self, query: str, *, shots: int, seed: int, separator: str = templates.SEPARATOR
  ) -> str:
    """The rendered `query` with its demonstrations before it; see `templates.join_shots`."""
    chosen = self.choose(query, shots=shots, seed=seed)
    return templates.join_shots(chosen, query, separator=separator)


def is_held_out(text: str, *, share: float = 0.1) -> bool:
  """True for about `share` of all texts: the selection split that `strict` runs keep from train.

  Decided by the text alone, so that two records with the same input are never on both sides.
  """
  return _number(f"held out:{text}") < share * 2**64


def _number(text: str) -> int:
  """A number below 2**64 that is the same in every process and Python version."""
  # Python's own `hash` differs between processes.
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
