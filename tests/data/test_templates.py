"""The templates of Table 7 of Wang et al. (ICLR 2024), against strings written by hand.

Those of other tasks are in tests/tasks/test_files.py.
"""

import pytest

import tasks
from promot_jax import errors
from promot_jax.data import templates
from tasks import trivia_qa

INFERENCE = {"premise": "A dog ran.", "hypothesis": "A dog moved."}
EXPECTED = {
  "rte": (
    {**INFERENCE, "label": 0},
    "A dog ran. question: A dog moved. Is it true or false? answer:",
    ("True",),
  ),
  "cb": (
    {**INFERENCE, "label": 1},
    "A dog ran. question: A dog moved. Is it true or false or neither? answer:",
    ("False",),
  ),
  "snli": (
    {**INFERENCE, "label": 1},
    "A dog ran. question: A dog moved. Is it true or false or neither? answer:",
    ("Neither",),
  ),
  "wic": (
    {"sentence1": "The river bank.", "sentence2": "A bank loan.", "word": "bank", "label": 0},
    "The river bank. A bank loan. question: The word bank is used in the same way in the two"
    " sentences. Is it true or False? answer:",
    ("False",),
  ),
  "openbookqa": (
    {
      "question": {
        "stem": "What is hot?",
        "choice_A": "ice",
        "choice_B": "snow",
        "choice_C": "fire",
        "choice_D": "rain",
      },
      "answerKey": 2,
    },
    "Q: What is hot? A) ice B) snow C) fire D) rain A:",
    ("C",),
  ),
  "trivia_qa": (
    {
      "question": "Who wrote Emma?",
      "answer": {
        "value": "Jane Austen",
        "normalized_value": "jane austen",
        "aliases": ["Austen", "Jane Austen"],
      },
    },
    "Q: Who wrote Emma? A:",
    ("Jane Austen", "Austen"),
  ),
  "web_questions": (
    {"question": "where is rome?", "answers": ["Italy", "Europe"]},
    "Q: where is rome? A:",
    ("Italy", "Europe"),
  ),
  "wmt14_en_fr": (
    {"en": "A cat.", "fr": "Un chat."},
    "Translate English to French: A cat.",
    ("Un chat.",),
  ),
  "wmt16_en_de": (
    {"en": "A cat.", "de": "Eine Katze."},
    "Translate English to German: A cat.",
    ("Eine Katze.",),
  ),
  "wmt16_en_ro": (
    {"en": "A cat.", "ro": "O pisică."},
    "Translate English to Romanian: A cat.",
    ("O pisică.",),
  ),
  "xsum": (
    {"document": "Much happened today.", "summary": "Things happened."},
    "Article: Much happened today. One sentence summary:",
    ("Things happened.",),
  ),
  "wiki_lingua": (
    {"source": "Boil water. Add tea.", "target": "Make tea.", "references": ["Make tea."]},
    "Article: Boil water. Add tea. One sentence summary:",
    ("Make tea.",),
  ),
}


@pytest.mark.parametrize("task", EXPECTED)
def test_a_record_is_rendered_as_in_the_paper(task):
  record, text, answers = EXPECTED[task]
  rendered = tasks.find(task).render(record)
  assert (rendered.input, rendered.target, rendered.answers) == (text, answers[0], answers)


@pytest.mark.parametrize(
  ("task", "label", "word"),
  [
    ("rte", 1, "False"),
    ("rte", "entailment", "True"),
    ("cb", 0, "True"),
    ("cb", 2, "Neither"),
    ("cb", "contradiction", "False"),
    ("snli", 0, "True"),
    ("snli", 2, "False"),
    ("snli", "neutral", "Neither"),
  ],
)
def test_labels_follow_the_class_order_of_each_data_set(task, label, word):
  assert tasks.find(task).render({**INFERENCE, "label": label}).target == word


def test_booleans_are_labels_of_word_in_context():
  record, _, _ = EXPECTED["wic"]
  assert tasks.find("wic").render({**record, "label": True}).target == "True"


def test_a_label_that_is_not_public_gives_no_target():
  rendered = tasks.find("rte").render({**INFERENCE, "label": -1})
  assert (rendered.target, rendered.answers) == ("", ())


def test_only_snli_drops_items_without_a_majority_label():
  assert not tasks.find("snli").is_usable({**INFERENCE, "label": -1})
  assert tasks.find("snli").is_usable({**INFERENCE, "label": 0})
  assert tasks.find("rte").is_usable({**INFERENCE, "label": -1})


def test_the_normalized_trivia_answer_can_be_the_target():
  record, _, _ = EXPECTED["trivia_qa"]
  rendered = trivia_qa.with_target("normalized_value").render(record)
  assert rendered.target == "jane austen"
  assert rendered.answers == ("jane austen", "Jane Austen", "Austen")


def test_demonstrations_come_before_the_query():
  shown = [("Q: a? A:", "x"), ("Q: b? A:", "y")]
  assert templates.join_shots(shown, "Q: c? A:") == "Q: a? A: x Q: b? A: y Q: c? A:"
  assert templates.join_shots(shown[:1], "Q: c? A:", separator="\n\n") == "Q: a? A: x\n\nQ: c? A:"
  assert templates.join_shots([], "Q: c? A:") == "Q: c? A:"


def test_a_target_can_stand_between_sentinels():
  assert templates.target_text("True") == "True"
  assert templates.target_text("True", "sentinel") == "<extra_id_0> True <extra_id_1>"
  with pytest.raises(errors.ConfigError, match="sentinal"):
    templates.target_text("True", "sentinal")


def test_a_missing_field_and_a_wrong_label_are_named():
  with pytest.raises(errors.DataError, match=r"rte: a record lacks .*hypothesis.*premise"):
    tasks.find("rte").render({"premise": "A.", "label": 0})
  with pytest.raises(errors.DataError, match="label 7"):
    tasks.find("rte").render({**INFERENCE, "label": 7})
  with pytest.raises(errors.ConfigError, match="'multirc' is not known"):
    tasks.find("multirc").render({})
