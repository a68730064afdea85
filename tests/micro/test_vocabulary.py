import functools
import hashlib
import itertools

import numpy as np
import pytest

import tasks
from promot_jax.micro import evaluation_sets, prose, vocabulary, world
from promot_jax.micro.dice import Dice

# Looked up once for thousands of records.
find_task = functools.cache(tasks.find)

WORDS = vocabulary.vocabulary()

TASKS = [name for name in tasks.task_names() if "micro" in find_task(name).sources]
# What the T5 was pretrained on, and the tasks that look like it.
SHORT = [name for name in TASKS if find_task(name).source("micro").origin.pretrained]
SHORT += ["rte", "snli", "nq_open"]


def records(task: str, split: str) -> tuple[dict, ...]:
  return world.records(twin(task), split)


def twin(task: str) -> world.Twin:
  return world.twin_of(find_task(task))


def texts(task: str, split: str):
  for record in records(task, split):
    rendered = find_task(task).render(record)
    yield rendered.input
    yield from rendered.answers


def test_special_tokens_have_the_ids_of_t5():
  assert WORDS.words[:4] == ("<pad>", "</s>", "<unk>", "<extra_id_0>")
  assert WORDS.sentinel(0) == 3 and WORDS.sentinel(7) == 10


def test_the_words_that_the_shipped_models_were_trained_with_have_kept_their_ids():
  # Of all but eight sentinels, which no text had, and in the place of which other words stand now.
  kept = "\n".join((*WORDS.words[:11], *WORDS.words[19:]))
  assert hashlib.sha256(kept.encode()).hexdigest()[:16] == KEPT_DIGEST
  assert WORDS.words[11:19] == (":", "|", "context:", "name", "Type", "price", "area", "high")


KEPT_DIGEST = "b655f63ba8110a4c"


def test_no_word_is_listed_twice():
  assert len(set(WORDS.words)) == WORDS.size


@pytest.mark.parametrize("task", TASKS)
def test_no_word_of_any_record_is_unknown(task):
  for split in world.splits(twin(task)):
    assert set(vocabulary.cut(" ".join(texts(task, split)))) <= set(WORDS.words)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_and_answers_come_back_as_they_were(task):
  for text in texts(task, "test"):
    assert WORDS.decode(WORDS.encode(text)) == text


def test_running_text_has_no_unknown_words():
  dice = Dice("vocabulary test")
  for _ in range(3000):
    for text in (prose.text(dice, 0), prose.inference_text(dice, composed=0.5)[0]):
      assert vocabulary.UNKNOWN not in WORDS.encode(text), text


@pytest.mark.parametrize(
  "text",
  [
    "Is it true or false? answer:",
    "Is it true or false or neither? answer:",
    "question: The word bank is used in the same way in the two sentences. Is it true or False?",
    "Q: where does Anna live? A:",
    "A) food B) tool C) animal D) vehicle A:",
    "Translate English to French: the dog.",
    "Translate English to German: Translate English to Romanian:",
    "Article: the park. One sentence summary:",
    "<extra_id_0> True <extra_id_1>",
    "True",
    "False",
    "Neither",
  ],
)
def test_the_wording_of_the_templates_round_trips(text):
  assert WORDS.decode(WORDS.encode(text, special_tokens=True)) == text


def test_sentinels_are_found_without_blanks_around_them():
  assert WORDS.encode("<extra_id_0>True<extra_id_1>") == WORDS.encode(
    "<extra_id_0> True <extra_id_1>"
  )


def test_unknown_words_become_unk_and_decoding_stops_at_the_end():
  ids = WORDS.encode("the zeppelin")
  assert ids == [WORDS.encode("the")[0], vocabulary.UNKNOWN]
  assert WORDS.decode([*ids, vocabulary.EOS, *ids]) == "the <unk>"
  assert WORDS.decode(np.array([0, ids[0], 0, 10**6])) == "the <unk>"


def test_vocabularies_are_equal_by_their_words():
  assert vocabulary.Vocabulary(WORDS.words) == WORDS
  assert vocabulary.Vocabulary(WORDS.words[:-1]) != WORDS


def evaluation_sets_of(
  split: str, shots: int, names: list[str]
) -> list[evaluation_sets.EvaluationSet]:
  every = map(tasks.find, names)
  return [evaluation_sets.evaluation_set(task, split, shots=shots) for task in every]


def test_prompts_fit_their_lengths():
  # 72 and 176 are the lengths that the model's recipes use for 1 and 4 demonstrations.
  for shots, length in ((0, 40), (1, 72), (4, 176)):
    for each in evaluation_sets_of("test", shots, SHORT):
      assert max(len(WORDS.encode(text)) for text in each.inputs) < length


def test_every_answer_fits_in_eleven_tokens():
  answers = itertools.chain.from_iterable(
    each.targets for each in evaluation_sets_of("validation", 0, SHORT)
  )
  assert max(len(WORDS.encode(text)) for text in itertools.chain(*answers)) <= 11


def test_longer_tasks_fit_the_lengths_of_the_recipes():
  # 64 and 24 with the end mark: TASK_FEATURE_LENGTHS of gin/micro/run.gin.
  for each in evaluation_sets_of("test", 0, [name for name in TASKS if name not in SHORT]):
    assert max(len(WORDS.encode(text)) for text in each.inputs) < 64
    assert max(len(WORDS.encode(text)) for text in itertools.chain(*each.targets)) < 24
