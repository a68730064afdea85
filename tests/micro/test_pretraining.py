import functools

import numpy as np
import pytest

import tasks
from promot_jax.micro import evaluation_sets, pretraining, vocabulary, world
from promot_jax.micro.curriculum import INFERENCE, MIXTURE, TEXT, Phase
from promot_jax.micro.dice import Dice

# Looked up once for thousands of records.
find_task = functools.cache(tasks.find)

WORDS = vocabulary.vocabulary()
PRETRAINED = [find_task(name) for name in MIXTURE if name not in (TEXT, INFERENCE)]
BATCH_SIZES = {0: 24, 1: 12, 2: 6, 4: 5}


@pytest.fixture(scope="module", autouse=True)
def few_texts():
  """Fewer texts with gaps than in pretraining: they are drawn alike, and the records are all here."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pretraining, "TEXTS", 3000)
    patch.setattr(pretraining, "INFERENCE_TEXTS", 1500)
    pretraining._material.cache_clear()
    yield
  pretraining._material.cache_clear()


@pytest.fixture(scope="module")
def stream() -> pretraining.Stream:
  return pretraining.Stream(
    (
      Phase(steps=3, shots={0: 1.0}, batch_size=BATCH_SIZES),
      Phase(steps=40, shots={0: 1, 1: 2, 2: 1, 4: 1}, batch_size=BATCH_SIZES),
    ),
    tasks=PRETRAINED,
    seed=7,
  )


def records(task: str, split: str) -> tuple[dict, ...]:
  return world.records(world.twin_of(find_task(task)), split)


def texts(batch: dict, name: str) -> list[str]:
  return [WORDS.decode(row) for row in batch[name]]


def test_a_step_has_the_same_batch_whatever_was_read_before(stream):
  late = stream.batch(29)
  again = pretraining.Stream(stream.curriculum, tasks=PRETRAINED, seed=7).batch(29)
  other = pretraining.Stream(stream.curriculum, tasks=PRETRAINED, seed=8).batch(29)
  assert all(np.array_equal(late[name], again[name]) for name in late)
  assert late["encoder_input_tokens"].shape != other["encoder_input_tokens"].shape or not (
    np.array_equal(late["encoder_input_tokens"], other["encoder_input_tokens"])
  )


def test_shapes_follow_the_number_of_demonstrations(stream):
  for step in range(43):
    shots = stream.shots(step)
    source, target = stream.widths[shots]
    batch = stream.batch(step)
    assert step >= 3 or shots == 0
    assert batch["encoder_input_tokens"].shape == (BATCH_SIZES[shots], source)
    for name in ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights"):
      assert batch[name].shape == (BATCH_SIZES[shots], target)
  assert {stream.shots(step) for step in range(43)} == {0, 1, 2, 4}
  assert stream.widths[1][0] <= 72 and stream.widths[4][0] <= 176


def test_decoder_inputs_are_the_targets_shifted_by_one(stream):
  batch = stream.batch(10)
  targets = batch["decoder_target_tokens"]
  assert not batch["decoder_input_tokens"][:, 0].any()
  np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 1:], targets[:, :-1])
  np.testing.assert_array_equal(batch["decoder_loss_weights"], targets > 0)
  assert batch["encoder_input_tokens"].dtype == targets.dtype == np.int32
  assert batch["decoder_loss_weights"].dtype == np.float32


def test_every_target_is_an_answer_between_sentinels(stream):
  for step in range(20):
    for row in stream.batch(step)["decoder_target_tokens"]:
      row = row[row > 0].tolist()
      assert row[0] == WORDS.sentinel(0) and row[-1] == vocabulary.EOS
      assert WORDS.sentinel(1) in row
      assert vocabulary.UNKNOWN not in row


def test_every_input_ends_with_the_end_mark(stream):
  for step in range(20):
    for row in stream.batch(step)["encoder_input_tokens"]:
      assert row[row > 0][-1] == vocabulary.EOS
      assert np.count_nonzero(row == vocabulary.EOS) == 1


def test_after_the_last_phase_the_stream_goes_on(stream):
  assert stream.steps == 43
  assert stream.batch(1000)["encoder_input_tokens"].any()


def test_no_evaluated_prompt_and_no_demonstration_pool_occurs_in_pretraining():
  segments, pools = pretraining._material(world.SEED, tuple(PRETRAINED))
  for task in set(pools) - {TEXT, INFERENCE}:
    pool = pools[task]
    rows = segments.rows(pool.queries + np.arange(pool.size)[:, None], 48)
    trained = {row.tobytes() for row in rows}
    assert len(trained) == pool.size
    for split in ("train", "validation", "test"):
      for record in records(task, split):
        ids = [*WORDS.encode(find_task(task).render(record).input), vocabulary.EOS]
        assert np.pad(np.array(ids, np.int32), (0, 48 - len(ids))).tobytes() not in trained


def test_rte_and_snli_have_no_episodes(stream):
  assert not {"rte", "snli"} & set(stream.curriculum[0].mixture)
  for step in range(43):
    for text in texts(stream.batch(step), "encoder_input_tokens"):
      assert "Is it true or false? answer:" not in text
      assert " never " not in text


def test_an_episode_shows_solved_records_of_one_task_and_never_its_own_query(stream):
  step = next(step for step in range(43) if stream.shots(step) == 4)
  episodes = [
    text for text in texts(stream.batch(step), "encoder_input_tokens") if text.startswith("Q:")
  ]
  assert episodes
  for text in episodes:
    *shown, query = text.split("Q: ")[1:]
    assert len(shown) == 4
    assert query.endswith("A:") and query not in {each[: len(query)] for each in shown}


def test_rows_are_joined_pieces_padded_with_zeros():
  segments = pretraining.Segments.of([[5, 6], [7], [8, 9, 10]])
  rows = segments.rows(np.array([[2, -1, 1], [0, 1, 0], [-1, -1, 1]]), 6)
  np.testing.assert_array_equal(rows, [[8, 9, 10, 7, 0, 0], [5, 6, 7, 5, 6, 0], [7, 0, 0, 0, 0, 0]])


def test_gaps_put_back_into_a_corrupted_text_give_the_text():
  dice = Dice("corruption")
  for _ in range(300):
    text = [int(dice.pick(range(100, 200))) for _ in range(1 + int(dice.pick(range(20))))]
    kept, cut = pretraining.corrupt(text, dice, WORDS)
    gaps: dict[int, list[int]] = {}
    for token in cut[:-1]:
      if 3 <= token < 3 + vocabulary.SENTINELS:
        gaps[token] = []
      else:
        gaps[list(gaps)[-1]].append(token)
    restored = [piece for token in kept for piece in gaps.get(token, [token])]
    assert restored == [*text, vocabulary.EOS]
    assert cut[-1] == vocabulary.EOS


def test_uniform_numbers_are_uniform_and_independent_of_the_rows_beside_them():
  numbers = pretraining.uniform(3, 5, np.arange(4000), 6)
  np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=0.02)
  np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=0.005)
  assert abs(np.corrcoef(numbers.T) - np.eye(6)).max() < 0.06
  np.testing.assert_array_equal(pretraining.uniform(3, 5, np.array([17]), 6)[0], numbers[17])


def test_sources_are_drawn_by_their_weights():
  picks = pretraining.choose(np.random.default_rng(0).uniform(size=9000), [0.2, 0.0, 0.5, 0.3])
  np.testing.assert_allclose(np.bincount(picks, minlength=4) / 9000, [0.2, 0, 0.5, 0.3], atol=0.02)


def test_evaluation_prompts_show_training_records_before_the_query():
  for task in ("rte", "wmt16_en_de"):
    plain = evaluation_sets.evaluation_set(find_task(task), "test", shots=0, limit=9)
    shown = evaluation_sets.evaluation_set(find_task(task), "test", shots=4, limit=9)
    train = {find_task(task).render(record).input for record in records(task, "train")}
    for query, prompt in zip(plain.inputs, shown.inputs, strict=True):
      assert prompt.endswith(" " + query)
      assert sum(text in prompt for text in train) >= 4
    assert plain.targets == shown.targets
