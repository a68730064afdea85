"""The pretraining stream: any step's batch, from its number alone.

An example is a text with gaps, or an episode: 0 to 4 solved records of one task and a further one.
Inputs end with </s>.  The target is always `<extra_id_0> answer <extra_id_1> </s>`, with further
gaps after it in texts.
All material is encoded once; a batch is then a few array operations, and needs no state: whatever is
random is a hash of (seed, step, row).
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from promot_jax.data.task import Task
from promot_jax.micro import prose, world
from promot_jax.micro.curriculum import CURRICULUM, INFERENCE, TEXT, Phase
from promot_jax.micro.dice import Dice
from promot_jax.micro.vocabulary import EOS, Vocabulary, vocabulary

TEXTS = 60_000
INFERENCE_TEXTS = 30_000
COMPOSED_IN_TEXT = 0.0  # share of "never" in the texts about what follows from what
CORRUPTED = 0.25  # share of a text's tokens that are cut out
_MULTIPLE = 8  # array lengths are multiples of it


@dataclasses.dataclass(frozen=True)
class Segments:
  """Pieces of token ids, one after the other in a single array."""

  tokens: np.ndarray  # [sum of lengths] int32
  starts: np.ndarray  # [pieces] int64
  lengths: np.ndarray  # [pieces] int64

  @classmethod
  def of(cls, pieces: Iterable[Sequence[int]]) -> "Segments":
    pieces = list(pieces)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    tokens = np.fromiter(itertools.chain.from_iterable(pieces), np.int32)
    return cls(tokens, np.cumsum(lengths) - lengths, lengths)

  def mask(self, pieces: np.ndarray, width: int) -> np.ndarray:
    """bool [B, width]: where `rows` has a token."""
    lengths = np.where(pieces >= 0, self.lengths[pieces], 0).sum(axis=1)
    return np.arange(width) < lengths[:, None]

  def rows(self, pieces: np.ndarray, width: int) -> np.ndarray:
    """Rows of joined pieces, padded with 0: [B, pieces per row] (-1 = none) -> [B, width]."""
    wanted = pieces >= 0
    chosen = pieces[wanted]
    lengths = self.lengths[chosen]
    # Row by row: the pieces of a row follow each other.
    row_of_piece = np.nonzero(wanted)[0]
    ends = np.cumsum(lengths)
    # Place of each token in its piece.
    within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    row = np.repeat(row_of_piece, lengths)
    # Rows are in rising order, so that the first token of each is found by halving.
    row_starts = np.searchsorted(row, np.arange(len(pieces)))
    column = np.arange(ends[-1]) - row_starts[row]
    filled = np.zeros((len(pieces), width), np.int32)
    filled[row, column] = self.tokens[np.repeat(self.starts[chosen], lengths) + within]
    return filled


@dataclasses.dataclass(frozen=True)
class Pool:
  """The encoded records of one source, as numbers of segments: record i's query is queries + i."""

  size: int
  queries: int
  demonstrations: int  # -1: the source has none
  targets: int


class Stream:
  """Batches of the pretraining stream.

  Args:
    curriculum: the phases, one after the other; after the last one it goes on.
    tasks: those that the mixtures of the phases name, at least.
    seed: of the order and the choice of demonstrations.
    world_seed: of the records and texts.

  Attributes:
    steps: training steps of all phases.
    widths: shots -> (input length, target length) of the arrays.
  """

  def __init__(
    self,
    curriculum: Sequence[Phase] = CURRICULUM,
    *,
    tasks: Sequence[Task],
    seed: int = 0,
    world_seed: int = world.SEED,
  ):
    self.curriculum = tuple(curriculum)
    self.seed = seed
    self.steps = sum(phase.steps for phase in self.curriculum)
    self._segments, self._pools = _material(world_seed, tuple(tasks))
    shots = sorted({number for phase in self.curriculum for number in phase.shots})
    self.widths = {number: self._widths(number) for number in shots}

  def shots(self, step: int) -> int:
    """The number of demonstrations in the batch of a step."""
    weights = phase_of(self.curriculum, step).shots
    # By the step alone, so that every row of a batch has as many.
    drawn = uniform(self.seed, step, np.zeros(1, np.int64), 1)[0]
    return list(weights)[int(choose(drawn, list(weights.values()))[0])]

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step: encoder_input_tokens and _mask [B, S], decoder_input_tokens, _target_tokens and
    _loss_weights [B, T]."""
    shots = self.shots(step)
    phase = phase_of(self.curriculum, step)
    # Queries are segments with their end, demonstrations without.
    queries, targets = self._draw(step, phase, shots)
    source_width, target_width = self.widths[shots]
    target = self._segments.rows(targets[:, None], target_width)
    return {
      "encoder_input_tokens": self._segments.rows(queries, source_width),
      "encoder_input_mask": self._segments.mask(queries, source_width),
      # Shifted by one behind the padding id, with which a T5's decoder begins.
      "decoder_input_tokens": np.pad(target[:, :-1], ((0, 0), (1, 0))),
      "decoder_target_tokens": target,
      "decoder_loss_weights": self._segments.mask(targets[:, None], target_width).astype(
        np.float32
      ),
    }

  def _draw(self, step: int, phase: Phase, shots: int) -> tuple[np.ndarray, np.ndarray]:
    """Segment numbers of the inputs [B, shots + 1] and of the targets [B]."""
    rows = np.arange(phase.batch_size[shots])
    drawn = uniform(self.seed, step, rows, shots + 3)  # [B, draws]
    source = choose(drawn[:, 0], list(phase.mixture.values()))
    pools = [self._pools[name] for name in phase.mixture]
    # The last column is not used: the hash has always been asked for one more.
    shown, query, target = episodes(pools, source, drawn[:, 1:-1])
    return np.concatenate([shown, query], axis=1), target[:, 0]

  def _widths(self, shots: int) -> tuple[int, int]:
    # Over all phases: each number of demonstrations has one shape, and so one compilation.
    """Array lengths that every example with so many demonstrations fits into."""
    longest_input = longest_target = 0
    # A source without weight must not make the arrays longer.
    used = {name for phase in self.curriculum for name, weight in phase.mixture.items() if weight}
    for pool in (self._pools[name] for name in sorted(used)):
      pieces = np.arange(pool.size)
      length = self._segments.lengths[pool.queries + pieces].max()
      if pool.demonstrations >= 0:
        length += shots * self._segments.lengths[pool.demonstrations + pieces].max()
      longest_input = max(longest_input, int(length))
      longest_target = max(longest_target, int(self._segments.lengths[pool.targets + pieces].max()))
    return _round_up(longest_input), _round_up(longest_target)


def phase_of(curriculum: Sequence[Phase], step: int) -> Phase:
  """The phase to which a step belongs."""
  for phase in curriculum:
    if step < phase.steps:
      return phase
    step -= phase.steps
  # A step beyond the phases belongs to the last one.
  return curriculum[-1]


def episodes(
  pools: Sequence[Pool], source: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Numbers of segments: demonstrations [E, shots] (-1 = none), queries [E, 1] and targets [E, 1].

  Args:
    source: [E], which of the pools each episode is of.
    drawn: [E, 1 + shots] of [0, 1): the query and the demonstrations.
  """
  column = {
    # A column of numbers for the sources of all rows.
    field.name: np.array([getattr(pool, field.name) for pool in pools])[source][:, None]
    for field in dataclasses.fields(Pool)
  }
  query = (drawn[:, :1] * column["size"]).astype(np.int64)
  # Demonstrations differ from the query: steps of 1 to size - 1 around the ring of records.
  away = 1 + (drawn[:, 1:] * (column["size"] - 1)).astype(np.int64)
  shown = (query + away) % column["size"]
  # Texts have no demonstrations, and -1 stands for no segment.
  shown = np.where(column["demonstrations"] < 0, -1, column["demonstrations"] + shown)
  return shown, column["queries"] + query, column["targets"] + query


def corrupt(tokens: Sequence[int], dice: Dice, words: Vocabulary) -> tuple[list[int], list[int]]:
  """Cuts one to three gaps of one to three tokens out of a text.

  Returns:
    The text with a sentinel in the place of each gap and </s>, and the gaps, each after its
    sentinel, closed by one more sentinel and </s>.
  """
  # As a set, since gaps may touch or overlap; those that touch are one.
  gone: set[int] = set()
  # A gap has nearly two tokens.
  for _ in range(max(1, round(CORRUPTED * len(tokens) / 2))):
    start = int(dice.pick(range(len(tokens))))
    gone.update(range(start, min(len(tokens), start + dice.pick((1, 1, 2, 3)))))
  kept: list[int] = []
  cut: list[int] = []
  gaps = 0
  for place, token in enumerate(tokens):
    if place not in gone:
      kept.append(token)
      continue
    # The first token of a gap.
    if place - 1 not in gone:
      kept.append(words.sentinel(gaps))
      cut.append(words.sentinel(gaps))
      gaps += 1
    cut.append(token)
  # Closed by one more sentinel, as T5's targets are.
  return [*kept, EOS], [*cut, words.sentinel(gaps), EOS]


def texts_with_gaps(seed: int) -> Iterator[tuple[str, tuple[list[int], list[int]]]]:
  """The texts of the stream, each with what it becomes."""
  dice, words = Dice("texts", seed), vocabulary()
  # All of one stream, so that the same seeds give the same texts.
  for _ in range(TEXTS):
    text = prose.text(dice, seed)
    yield text, corrupt(words.encode(text), dice, words)


@functools.cache
def _material(seed: int, tasks: tuple[Task, ...]) -> tuple[Segments, dict[str, Pool]]:
  """All encoded queries, demonstrations and targets."""
  words = vocabulary()
  pieces: list[Sequence[int]] = []
  pools = {}

  def add(name: str, queries, demonstrations, targets) -> None:
    starts = []
    for part in (queries, demonstrations, targets):
      # An empty part has no first segment.
      starts.append(len(pieces) if part else -1)
      pieces.extend(part)
    pools[name] = Pool(len(queries), *starts)

  pairs = [pair for _, pair in texts_with_gaps(seed)]
  add(TEXT, [pair[0] for pair in pairs], [], [pair[1] for pair in pairs])
  dice = Dice("inference texts", seed)
  pairs = [_inference_pair(dice, words) for _ in range(INFERENCE_TEXTS)]
  add(INFERENCE, [pair[0] for pair in pairs], [], [pair[1] for pair in pairs])
  for task in tasks:
    # Records that no split for evaluation has.
    found = world.records(world.twin_of(task), "pretraining", seed)
    rendered = [task.render(each) for each in found]
    queries = [words.encode(each.input) for each in rendered]
    answers = [words.encode(each.target) for each in rendered]
    add(
      task.name,
      # Queries end with </s>; demonstrations do not, since a query follows.
      [[*query, EOS] for query in queries],
      [[*query, *answer] for query, answer in zip(queries, answers)],
      [[words.sentinel(0), *answer, words.sentinel(1), EOS] for answer in answers],
    )
  return Segments.of(pieces), pools


def _inference_pair(dice: Dice, words: Vocabulary) -> tuple[list[int], list[int]]:
  """Mostly a gap in the place of the connective, else gaps anywhere."""
  text, connective = prose.inference_text(dice, composed=COMPOSED_IN_TEXT)
  if dice.chance(0.3):
    return corrupt(words.encode(text), dice, words)
  # The connective alone: what is to be learned is how the two sentences go together.
  gap = text.replace(f". {connective} ", ". <extra_id_0> ", 1)
  target = f"<extra_id_0> {connective} <extra_id_1>"
  # Both spell sentinels, which are text otherwise.
  source, answer = (words.encode(text, special_tokens=True) for text in (gap, target))
  return [*source, EOS], [*answer, EOS]


def uniform(seed: int, step: int, rows: np.ndarray, draws: int) -> np.ndarray:
  """Numbers in [0, 1) that depend on nothing but the arguments: [B, draws] (SplitMix64)."""
  # Numbers wrap around, which is how this hash works.
  with np.errstate(over="ignore"):
    state = np.uint64(seed * 0x632BE59BD9B4E019 % 2**64) + np.uint64(step) * np.uint64(
      # Mixed between step, row and draw, so that neighbours have nothing in common.
      0xD1342543DE82EF95
    )
    state = _mix(state) + rows.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    state = _mix(state) + np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    # 53 bits, as many as a float64 holds.
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: Any) -> Any:
  """Of each number (np.uint64) the hash that SplitMix64 gives out."""
  state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return state ^ (state >> np.uint64(31))


def choose(drawn: np.ndarray, weights: Sequence[float]) -> np.ndarray:
  """Index of the weight in whose share of the unit interval each number lies."""
  shares = np.cumsum(weights) / np.sum(weights)
  # Rounding may leave the last share just below 1.
  return np.minimum(np.searchsorted(shares, drawn, side="right"), len(weights) - 1)


def _round_up(length: int) -> int:
  return -(-length // _MULTIPLE) * _MULTIPLE
