"""The pretraining stream of a decoder-only model: rows that are filled with texts and episodes.

A text ends with </s>.  An episode is 0 to 4 solved records, a query, </s>, its answer and </s>: the end
mark stands between an input and its answer, as it does behind an encoder's input.  Answers of solved
records are learned as well as the last one, so that an episode says several times what follows from what
stands before.  Episodes fill a row one after the other, of whatever tasks, and the last one is cut: nothing
is computed for padding, and the model learns from the start that what counts is what was asked last.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from promot_jax.data.task import Task
from promot_jax.micro import pretraining, prose, world
from promot_jax.micro.curriculum import (
  DECODER_CURRICULUM,
  DECODER_LENGTH,
  DECODER_ROWS,
  INFERENCE,
  TEXT,
  Phase,
)
from promot_jax.micro.dice import Dice
from promot_jax.micro.pretraining import Pool, Segments
from promot_jax.micro.vocabulary import EOS, vocabulary

_DOCUMENTS = 10  # at most in a row; the shortest have about as many tokens


class DecoderStream:
  """Batches of the stream; arguments as those of `pretraining.Stream`."""

  def __init__(
    self,
    curriculum: Sequence[Phase] = DECODER_CURRICULUM,
    *,
    tasks: Sequence[Task],
    seed: int = 0,
    world_seed: int = world.SEED,
  ):
    self.curriculum = tuple(curriculum)
    self.seed = seed
    self._material = _material(world_seed, tuple(tasks))

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step: encoder_input_tokens [B, 1], which are the rows' first tokens, and of the
    others decoder_target_tokens and _loss_weights [B, L - 1]."""
    pieces = self._draw(step)
    lengths = self._material.tokens.lengths
    width = max(DECODER_LENGTH, int(np.where(pieces >= 0, lengths[pieces], 0).sum(axis=1).max()))
    tokens = self._material.tokens.rows(pieces, width)[:, :DECODER_LENGTH]
    learned = self._material.learned.rows(pieces, width)[:, :DECODER_LENGTH]
    return {
      "encoder_input_tokens": tokens[:, :1],
      "decoder_target_tokens": tokens[:, 1:],
      "decoder_loss_weights": learned[:, 1:].astype(np.float32),
    }

  def _draw(self, step: int) -> np.ndarray:
    """Numbers of the pieces in each row, -1 for none: [B, documents * (demonstrations + 2)]."""
    phase = pretraining.phase_of(self.curriculum, step)
    most = max(phase.shots)
    documents = np.arange(DECODER_ROWS * _DOCUMENTS)
    uniform = pretraining.uniform(self.seed, step, documents, most + 3)  # [documents, draws]
    pools = [self._material.pools[name] for name in phase.mixture]
    chosen = pretraining.choose(uniform[:, 0], list(phase.mixture.values()))
    shots = np.array(list(phase.shots))[
      pretraining.choose(uniform[:, 1], list(phase.shots.values()))
    ]
    shown, query, target = pretraining.episodes(pools, chosen, uniform[:, 2:])
    # As many demonstrations as were drawn, each document its own number.
    shown = np.where(np.arange(most) < shots[:, None], shown, -1)
    return np.concatenate([shown, query, target], axis=1).reshape(DECODER_ROWS, -1)


def dice_of(name: str, seed: int) -> Dice:
  """What draws the texts of this name."""
  return Dice("decoder", name, seed)


@dataclasses.dataclass(frozen=True)
class Material:
  """All pieces: their tokens, and for each token whether it is learned to be written (1) or only read."""

  tokens: Segments
  learned: Segments
  pools: dict[str, Pool]


@functools.cache
def _material(seed: int, tasks: tuple[Task, ...]) -> Material:
  """All encoded texts, queries, demonstrations and targets."""
  words = vocabulary()
  tokens: list[Sequence[int]] = []
  learned: list[Sequence[int]] = []
  pools = {}

  def add(name: str, queries, demonstrations, targets) -> None:
    starts = []
    # Each part is a list of (ids, whether each of them is learned).
    for part in (queries, demonstrations, targets):
      starts.append(len(tokens) if part else -1)
      tokens.extend(ids for ids, _ in part)
      learned.extend(marks for _, marks in part)
    pools[name] = Pool(len(queries), *starts)

  def add_texts(name: str, count: int, draw: Callable[[Dice], str]) -> None:
    dice = dice_of(name, seed)
    found = [words.encode(draw(dice)) for _ in range(count)]
    # The end behind a text is its target, and all of it is learned.
    add(name, [(ids, [1] * len(ids)) for ids in found], [], [([EOS], [1])] * count)

  add_texts(TEXT, pretraining.TEXTS, lambda dice: prose.text(dice, seed))
  add_texts(
    INFERENCE,
    pretraining.INFERENCE_TEXTS,
    lambda dice: prose.inference_text(dice, composed=pretraining.COMPOSED_IN_TEXT)[0],
  )
  for task in tasks:
    # Records that no split for evaluation has.
    found = world.records(world.twin_of(task), "pretraining", seed)
    rendered = [task.render(each) for each in found]
    pairs = [(words.encode(each.input), words.encode(each.target)) for each in rendered]
    add(
      task.name,
      [([*query, EOS], [0] * (len(query) + 1)) for query, _ in pairs],
      [([*query, *answer], [0] * len(query) + [1] * len(answer)) for query, answer in pairs],
      [([*answer, EOS], [1] * (len(answer) + 1)) for _, answer in pairs],
    )
  return Material(Segments.of(tokens), Segments.of(learned), pools)
