"""Which part of an output is scored: the rules of Wang et al. (ICLR 2024), case by case."""

import pytest

from promot_jax.metrics import postprocess


@pytest.mark.parametrize(
  ("output", "scored"),
  [
    ("Paris", "Paris"),
    ("<extra_id_0> Paris <extra_id_1>", "Paris"),
    ("<extra_id_0> Paris <extra_id_1> London <extra_id_2>", "Paris"),
    ("well <extra_id_0> Paris", "Paris"),
    ("Paris <extra_id_1> London", "Paris"),
    ("Paris Q: And Spain? A: Madrid", "Paris"),
    ("Paris Translate English to French: a cat", "Paris"),
    ("Paris Article: News", "Paris"),
    ("Paris Article: News Q: And?", "Paris"),
    ("Q: Where? A: Paris Q: And Spain?", "Q: Where? A: Paris"),  # cut at the second prefix only
    ("<extra_id_0> Paris Q: And Spain? <extra_id_1>", "Paris"),
    ("The FAQ: is Translated", "The FAQ: is Translated"),
    ("", ""),
  ],
)
def test_generated_text_is_cut_as_in_the_paper(output, scored):
  assert postprocess.Scored(task="trivia_qa")(output) == scored


@pytest.mark.parametrize("task", ["rte", "cb", "wic", "snli"])
def test_classification_looks_at_the_first_token_only(task):
  scored = postprocess.Scored(task=task, first_token=True)
  assert scored("True") == "True"
  assert scored("<extra_id_0> False, because it rains") == "False"
  assert scored("Neither.") == "Neither"
  assert scored("It is True") == "It"
  assert scored("?") == ""


@pytest.mark.parametrize(
  ("output", "ended"),
  [
    (" Paris\n\nQ: And Spain? A: Madrid", " Paris"),
    ("Paris", "Paris"),
    ("Paris;London\n", "Paris"),
    ("\nParis", ""),  # the answer was to be on the question's line
    ("", ""),
  ],
)
def test_an_output_ends_at_the_first_stop(output, ended):
  assert postprocess.until(output, ["\n", ";"]) == ended
  assert postprocess.until(output, []) == output


def test_an_answer_letter_is_not_cut_from_a_sentence():
  assert postprocess.Scored(task="openbookqa")("A cat") == "A cat"


def test_results_describe_it_as_they_always_did():
  # What functools.partial(postprocess, "rte") was written as in the fingerprints of older results.
  assert postprocess.Scored(task="rte", first_token=True).described == "postprocess('rte',)[]"
