"""Batches by step number: the same ones after any restart and on any number of hosts.

One endless stream of positions runs through all epochs; position p is example `permutation(epoch)
[p mod N]` of its task.  A window of `batches_per_window` batches is cut from the stream, sorted by
length and cut into batches whose order is shuffled, so that a batch holds examples of similar
length and needs little padding.  Nothing is carried from step to step: step s can be asked for
directly, and every host makes the same batch, of which its devices get their rows
(`partitioning.global_batch`).

numpy only; neither TensorFlow nor JAX is imported.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from promot_jax import errors
from promot_jax.data import buckets as bucketing
from promot_jax.data import examples as example_lists
from promot_jax.data import mixtures
from promot_jax.data.pool import Pool, Split
from promot_jax.token_ids import TokenIds

Batch = dict[str, np.ndarray]

_Plan = tuple[np.ndarray, tuple[int, int]]
"""The numbers of a batch's examples, and its padded (S, T)."""
_FITTED = 8  # windows that buckets are fitted to
_LOOKED_AT = 2**12  # examples in them at most, where they have to be read for it
_SHORTEST_BLOCK, _LONGEST_BLOCK = 64, 2**16  # of an `Interleaving`


def read_only(batch: Mapping[str, np.ndarray]) -> Batch:
  """What a model is given that has to answer, or to read only: everything but the answers."""
  return {name: array for name, array in batch.items() if not name.startswith("decoder_")}


class TrainBatches:
  """`batches(step)` -> the batch of `step`; step 0 is the first.

  Args:
    examples: of one task, or of several that are mixed; a large split's may be read as they are
      needed (`stream`).  With several, `prompt_ids` are the
      tasks' numbers in this order; with one they are those of the examples.
    batch_size: rows of a batch.
    seed: order of the examples.
    buckets: padded lengths; None fits them to the batches, the same ones for every seed.
    bucket_counts: how many lengths of the source and of the target axis are fitted at most.
    rates: how often each of several tasks is drawn; see `mixtures`.
    batches_per_window: more pad less, fewer mix short and long examples better.
    special: what the model's rows are padded with and its decoder starts with.

  Every example of a task is drawn once before any is drawn again.

  Raises:
    ConfigError: the batch has no rows, or an example exceeds the buckets.
  """

  def __init__(
    self,
    examples: "Split | Sequence[Split]",
    *,
    batch_size: int,
    seed: int = 0,
    buckets: bucketing.Buckets | None = None,
    bucket_counts: tuple[int, int] = (6, 2),
    rates: mixtures.Rates = mixtures.equal,
    batches_per_window: int = 32,
    special: TokenIds,
  ):
    if batch_size < 1:
      raise errors.ConfigError(f"batch size {batch_size} must be at least 1.")
    self.batch_size = batch_size
    self.seed = seed
    self._special = special
    self._pool = Pool(examples)
    # Where nothing has to be read the examples are chosen by their numbers among all.
    self._whole = self._pool.in_memory
    self._interleaving = Interleaving(rates(self._pool.sizes.tolist()))
    # A window larger than the data would put one example into the same batch twice.
    self.batches_per_window = max(1, min(batches_per_window, len(self._pool) // batch_size))
    self.buckets = buckets or self._fitted(bucket_counts)
    # Now, and not at the step that has the longest example.
    for side, longest in zip((self.buckets.inputs, self.buckets.targets), self._pool.longest):
      bucketing.choose(side, np.asarray([longest]))
    self._shapes = None if self._whole is None else _Shapes(_Lengths(self._whole), self.buckets)

  def __call__(self, step: int) -> Batch:
    window, (indices, shape) = self._at(step)
    return collate(window.examples, indices, shape, self._special)

  @property
  def prompt_ids(self) -> np.ndarray:
    """int32: the rows of the prompt bank that the examples of all tasks use."""
    return self._pool.prompt_ids

  def indices(self, step: int) -> np.ndarray:
    """[B] numbers of the batch's rows, counted through the tasks in their order."""
    window, (indices, _) = self._at(step)
    return indices if self._whole is not None else window.numbers[indices]

  def shape(self, step: int) -> tuple[int, int]:
    """(S, T) of the batch of `step`."""
    return self._at(step)[1][1]

  def epoch(self, step: int) -> float:
    """How often the whole data (of a mixture: the largest task) has been seen before `step`."""
    # Draws of a task for each of the whole stream.
    rate = self._interleaving.counts / len(self._interleaving.block)
    # The smallest is that of the data that take longest to be seen whole.
    return float(step * self.batch_size * (rate / self._pool.sizes).min())

  def padding_ratio(self, steps: int | None = None) -> float:
    """Computed tokens for each needed one, over the first `steps` (None: about one epoch)."""
    # Rounded up, so that little data count once.
    if steps is None:
      steps = -(-len(self._pool) // self.batch_size)
    found = map(self._at, range(steps))
    return _ratio(window.shapes.lengths.spent([plan]) for window, plan in found)

  def _at(self, step: int) -> "tuple[_Window, _Plan]":
    """The batch of `step`, and where its examples are."""
    window, place = divmod(step, self.batches_per_window)
    found = self._window(window)
    return found, found.plans[place]

  def _fitted(self, counts: tuple[int, int]) -> bucketing.Buckets:
    rows = self.batches_per_window * self.batch_size
    # Eight windows are enough to see the lengths of batches, and quickly drawn.
    windows = min(_FITTED, -(-len(self._pool) // rows))
    if self._whole is None:
      windows = max(1, min(windows, _LOOKED_AT // rows))
    # Drawn with seed 0 whatever the seed: runs that differ in the seed share their compilations.
    drawn = np.concatenate([self._drawn(window, seed=0) for window in range(windows)])
    lengths = _Lengths(self._pool.examples(drawn))
    places = np.split(np.arange(len(drawn)), windows)
    return lengths.fit(places, self.batch_size, counts, longest=self._pool.longest)

  @functools.lru_cache(maxsize=4)  # noqa: B019  (one object lives as long as its run)
  def _window(self, window: int) -> "_Window":
    # Counter-based, so that any window can be drawn without those before it.
    random = np.random.Generator(np.random.Philox(key=[self.seed, 2**32 + window]))
    numbers = self._drawn(window, seed=self.seed)
    numbers = numbers[random.permutation(len(numbers))]  # equal lengths in no order
    places, examples, shapes = numbers, self._whole, self._shapes
    if examples is None or shapes is None:
      places, examples = np.arange(len(numbers)), self._pool.examples(numbers)
      shapes = _Shapes(_Lengths(examples), self.buckets)
    plans = shapes.split(places, self.batch_size)
    plans = [plans[place] for place in random.permutation(len(plans))]
    return _Window(numbers=numbers, examples=examples, shapes=shapes, plans=plans)

  def _drawn(self, window: int, *, seed: int) -> np.ndarray:
    """Numbers of the examples at the stream positions of a window."""
    count = self.batches_per_window * self.batch_size
    # Positions first: which task each is of follows without what came before.
    tasks, draws = self._interleaving.draw(np.arange(window * count, (window + 1) * count))
    numbers = np.empty(count, dtype=np.int64)
    for task in np.unique(tasks):
      members = tasks == task
      epochs, places = np.divmod(draws[members], self._pool.sizes[task])
      found = np.empty(len(places), dtype=np.int64)
      # A window may lie across the end of an epoch, each of which has its own order.
      for epoch in np.unique(epochs):
        now = epochs == epoch
        found[now] = self._order(seed, int(task), int(epoch), places[now])
      numbers[members] = self._pool.starts[task] + found
    return numbers

  def _order(self, seed: int, task: int, epoch: int, places: np.ndarray) -> np.ndarray:
    """Numbers of a task's examples at these places of one epoch."""
    if self._whole is None and self._pool.is_stream(task):
      return self._pool.shuffled(task, places, key=[seed, task, epoch])
    return self._permutation(seed, task, epoch)[places]

  # The last ones are kept, since a window mostly has the epoch of the one before it.
  @functools.lru_cache(maxsize=8)  # noqa: B019
  def _permutation(self, seed: int, task: int, epoch: int) -> np.ndarray:
    sequence = np.random.SeedSequence([seed, task, epoch])
    return np.random.Generator(np.random.Philox(sequence)).permutation(self._pool.sizes[task])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
  """The examples between two places of the stream, and the batches that they become."""

  numbers: np.ndarray  # through all tasks
  examples: "example_lists.Examples"  # of these numbers, or all
  shapes: "_Shapes"
  plans: "list[_Plan]"  # by the places in `examples`


class EvalBatches:
  """Iterates over (batch, rows): every example once, longest first, few shapes.

  `rows` [B] are the numbers of the examples, counted through all of `examples`; -1 marks a row
  that only fills the last batch (a copy of another row, with loss weights 0).

  Args:
    examples: of one task, or of several tasks that can share batches.
    batch_size: rows of every batch.
    buckets: padded lengths; None fits them to the batches.
    bucket_counts: how many lengths of the source and of the target axis are fitted at most.
  """

  def __init__(
    self,
    examples: "example_lists.Examples | Sequence[example_lists.Examples]",
    *,
    batch_size: int,
    buckets: bucketing.Buckets | None = None,
    bucket_counts: tuple[int, int] = (6, 2),
    special: TokenIds,
  ):
    if not isinstance(examples, example_lists.Examples):
      examples = example_lists.concatenate(examples)
    self._all = examples
    self._special = special
    lengths = _Lengths(self._all)
    self.buckets = buckets or lengths.fit(
      [np.arange(len(self._all))], batch_size, bucket_counts, longest=self._all.longest
    )
    self._shapes = _Shapes(lengths, self.buckets)
    self.batch_size = batch_size

  def __len__(self) -> int:
    # Rounded up: the last batch is filled.
    return -(-len(self._all) // self.batch_size)

  def __iter__(self) -> Iterator[tuple[Batch, np.ndarray]]:
    for indices, shape in self._plans():
      missing = self.batch_size - len(indices)
      # One shape for all batches, or the last one would compile a program of its own.
      # With the first of them, an example that fits the shape.
      filled = np.concatenate([indices, np.repeat(indices[:1], missing)])
      batch = collate(self._all, filled, shape, self._special)
      # Copies take no part in any sum.
      batch["decoder_loss_weights"][len(indices) :] = 0.0
      yield batch, np.concatenate([indices, np.full(missing, -1, dtype=np.int64)])

  def padding_ratio(self) -> float:
    """Computed tokens for each needed one; the filling rows of the last batch are not counted."""
    return _ratio([self._shapes.lengths.spent(self._plans())])

  def _plans(self) -> "list[_Plan]":
    # Longest first: what does not fit into memory shows at once, not at the end.
    return self._shapes.split(np.arange(len(self._all)), self.batch_size)[::-1]


class Interleaving:
  """A block of task numbers that is repeated for ever: the order in which tasks are drawn.

  Any position of the endless stream can be looked up without what comes before it.

  Args:
    rates: share of each task; they sum to 1.  A task is in every block at least once, and the
      block is long enough (up to 65536) that no rate is far off.
  """

  def __init__(self, rates: np.ndarray):
    rates = np.asarray(rates, dtype=float)
    # At least eight draws of the rarest task, so that rounding takes little of its rate.
    wanted = int(2 ** np.ceil(np.log2(8 / rates.min()))) if len(rates) > 1 else 1
    length = int(np.clip(wanted, _SHORTEST_BLOCK, _LONGEST_BLOCK)) if len(rates) > 1 else 1
    self.counts = _apportion(rates, length)  # draws of each task in one block
    # Task t's j-th draw belongs at (j + 1/2) / count of the block, which spreads it evenly.
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
    tasks = np.repeat(np.arange(len(rates)), self.counts)
    # By place, and where two tasks belong at one place, by their number: the same on every host.
    self.block = tasks[np.lexsort((tasks, places))]  # [length] task of each place
    self._rank = np.zeros(len(self.block), dtype=np.int64)  # how many draws of it came before
    for task in range(len(rates)):
      members = self.block == task
      self._rank[members] = np.arange(members.sum())

  def draw(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Task of each stream position, and the number of earlier draws of that task."""
    block, place = np.divmod(positions, len(self.block))
    # Position -> place in the block, for all blocks are alike.
    tasks = self.block[place]
    return tasks, block * self.counts[tasks] + self._rank[place]


def _apportion(rates: np.ndarray, length: int) -> np.ndarray:
  """Whole numbers in proportion to `rates` that sum to `length`, each at least 1."""
  exact = rates * length
  counts = np.maximum(np.floor(exact), 1).astype(np.int64)
  while counts.sum() < length:
    # To whoever is owed most.
    counts[np.argmax(exact - counts)] += 1
  while counts.sum() > length:
    # The rarest tasks were rounded up to one draw, which they keep.
    counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
  return counts


class _Lengths:
  """Source and target lengths [N] of examples."""

  def __init__(self, examples: "example_lists.Examples"):
    self.inputs = np.array([len(tokens) for tokens in examples.inputs])
    self.targets = np.array([len(tokens) for tokens in examples.targets])

  def fit(
    self,
    windows: Sequence[np.ndarray],
    batch_size: int,
    counts: tuple[int, int],
    *,
    longest: tuple[int, int],
  ) -> bucketing.Buckets:
    """Buckets for the batches into which the windows will be cut.

    Args:
      longest: input and target of all examples, so that every one fits a bucket.
    """
    # Batches and not examples: it is the longest of each batch that is padded to.
    found = self._maxima(self.inputs, windows, batch_size, (self.inputs,))
    inputs = bucketing.best_lengths(
      np.append(found, longest[0]), count=counts[0], multiple=bucketing.INPUT_MULTIPLE
    )
    # The target axis is fitted to batches that are sorted with those source buckets.
    place = bucketing.choose(inputs, self.inputs)
    found = self._maxima(self.targets, windows, batch_size, (self.targets, place))
    targets = bucketing.best_lengths(
      np.append(found, longest[1]), count=counts[1], multiple=bucketing.TARGET_MULTIPLE
    )
    return bucketing.Buckets(inputs=inputs, targets=targets)

  def spent(self, plans: "Sequence[_Plan]") -> tuple[int, int]:
    """Computed and needed tokens of batches."""
    computed = needed = 0
    for indices, (source, target) in plans:
      computed += len(indices) * (source + target)
      needed += int(self.inputs[indices].sum() + self.targets[indices].sum())
    return computed, needed

  @staticmethod
  def _maxima(
    lengths: np.ndarray,
    windows: Sequence[np.ndarray],
    batch_size: int,
    keys: tuple[np.ndarray, ...],
  ) -> np.ndarray:
    """Longest of each batch."""
    batches = [
      part for window in windows for part in _cut(window[_order(keys, window)], batch_size)
    ]
    return np.array([lengths[part].max() for part in batches])


class _Shapes:
  """The padded shapes of batches made of examples of these lengths."""

  def __init__(self, lengths: _Lengths, buckets: bucketing.Buckets):
    self.buckets = buckets
    self.lengths = lengths
    self._input_bucket = bucketing.choose(buckets.inputs, lengths.inputs)
    self._target_bucket = bucketing.choose(buckets.targets, lengths.targets)

  def split(self, indices: np.ndarray, batch_size: int) -> "list[_Plan]":
    """Batches of similar length, shortest first, each with its padded (S, T).

    Within a source bucket the order is by target length, so that the target axis is padded little
    as well.  Only the first batch, of the shortest examples, may be smaller.
    """
    # By the last key first: bucket, then target length, then input length.
    keys = (self.lengths.inputs, self.lengths.targets, self._input_bucket)
    ordered = indices[_order(keys, indices)]
    return [(part, self._shape(part)) for part in _cut(ordered, batch_size)]

  def _shape(self, indices: np.ndarray) -> tuple[int, int]:
    return (
      self.buckets.inputs[self._input_bucket[indices].max()],
      self.buckets.targets[self._target_bucket[indices].max()],
    )


def _ratio(spent: Iterable[tuple[int, int]]) -> float:
  """Computed tokens for each needed one."""
  computed, needed = map(sum, zip(*spent))
  return computed / needed


def _order(keys: Sequence[np.ndarray], indices: np.ndarray) -> np.ndarray:
  """Order of `indices` by the last key first."""
  return np.lexsort([key[indices] for key in keys])


def _cut(ordered: np.ndarray, batch_size: int) -> list[np.ndarray]:
  """Batches counted from the end, so that an incomplete one holds the shortest examples."""
  # From the end: the longest examples fill whole batches.
  cuts = range(len(ordered) % batch_size, len(ordered), batch_size)
  return [part for part in np.split(ordered, list(cuts)) if len(part)]


def collate(
  examples: "example_lists.Examples",
  indices: np.ndarray | Sequence[int],
  shape: tuple[int, int],
  special: TokenIds,
) -> Batch:
  """The arrays of a batch, padded to `shape` = (S, T).

  The decoder's inputs are its targets, moved on by one position behind `special.decoder_start`.  A
  decoder-only model reads its targets behind the inputs, and the batch has no such array.  Loss
  weights are 1 for the tokens of an example whatever their ids, and 0 for padding; likewise
  `encoder_input_mask` is True for the tokens of an input, by its length.

  Whatever else the task declares comes under its own name, with NAME_mask (`features.Feature.padded`).

  Raises:
    DataError: an example of a decoder-only model has no input.
    ConfigError: a feature's buckets do not hold an example.
  """
  every_input, every_target = examples.features["inputs"], examples.features["targets"]
  rows = len(indices)
  # Whatever the padding's id, `mask` and the weights say what is a token.
  source = np.full((rows, shape[0]), special.pad, dtype=np.int32)
  target = np.full((rows, shape[1]), special.pad, dtype=np.int32)
  mask = np.zeros((rows, shape[0]), dtype=bool)
  weights = np.zeros((rows, shape[1]), dtype=np.float32)
  for row, index in enumerate(indices):
    inputs, targets = every_input[index], every_target[index]
    # Such a model predicts its first token from the last one of the input.
    if special.decoder_start is None and not len(inputs):
      raise errors.DataError(
        f"Example {index} has no input token, and a decoder-only model needs one to begin after; give"
        " the vocabulary a separator, or its texts a bos."
      )
    source[row, : len(inputs)] = inputs
    mask[row, : len(inputs)] = True
    target[row, : len(targets)] = targets
    weights[row, : len(targets)] = 1.0
  batch = {"encoder_input_tokens": source, "encoder_input_mask": mask}
  if special.decoder_start is not None:
    # The decoder's input is the target one place behind its start, and loses the last token.
    start = np.full((rows, 1), special.decoder_start, dtype=np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], axis=1)
  for name, kind in examples.kinds.items():
    arrays = [examples.features[name][index] for index in indices]
    batch |= kind.padded(name, arrays, examples.extents[name])
  return {
    **batch,
    "decoder_target_tokens": target,
    "decoder_loss_weights": weights,
    "prompt_ids": np.asarray(examples.features["prompt_ids"], np.int32)[np.asarray(indices)],
  }
