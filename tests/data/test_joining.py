"""An input and its answer as one text: ids of the whole, cut where lm-evaluation-harness cuts."""

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import joining, templates, vocabularies

tokenizers = pytest.importorskip("tokenizers")

ONE_TEXT = "?separator=%20"
PAIRS = [
  ("Q: who sells the lamp? A:", "True"),
  ("the lamp is old question: who sells it? Is it true or false? answer:", "False"),
  ("Article: à côté 🙂 One sentence summary:", "two lamps, à côté"),
  ("Translate English to French: the lamp ", "the old lamp"),  # ends with a blank of its own
  ("two\nlines: \n", "True"),
]


def lm_eval_pair(encode, context, continuation):
  """The published rule of lm-evaluation-harness's `_encode_pair` for decoder-only models.

  Blanks at the context's end go to the continuation, whole and context are tokenized, and the
  continuation is what the whole has behind as many tokens as the context has.
  """
  blanks = len(context) - len(context.rstrip())
  if blanks:
    continuation = context[-blanks:] + continuation
    context = context[:-blanks]
  whole, before = encode(context + continuation), encode(context)
  return before, whole[len(before) :]


@pytest.fixture(params=["gpt2", "llama", "sentencepiece"])
def vocabulary(request, tokenizer_folder):
  return vocabularies.open_vocabulary(f"hf:{tokenizer_folder(request.param)}{ONE_TEXT}")


def test_context_and_continuation_are_the_whole_text_tokenized_once(vocabulary):
  for text, answer in PAIRS:
    context, continuation = joining.texts_to_tokens(vocabulary, text, answer)
    between = "" if text[-1].isspace() else " "
    assert [*context, *continuation] == vocabulary.encode(text + between + answer)
    assert context == vocabulary.encode(text.rstrip())
    assert continuation


def test_the_cut_is_that_of_lm_evaluation_harness(vocabulary):
  contexts = [text for text, _ in PAIRS] + ["answer: ", "answer:\n", "answer:  ", "", " "]
  for context in contexts:
    for continuation in (" True", "True", "\nTrue", " two lamps", "."):
      expected = lm_eval_pair(vocabulary.encode, context, continuation)
      assert joining.cut(vocabulary.encode, context, continuation) == expected
  for text, answer in PAIRS[:3]:  # target_delimiter " "
    expected = lm_eval_pair(vocabulary.encode, text, " " + answer)
    assert joining.texts_to_tokens(vocabulary, text, answer) == expected


def test_the_answer_begins_with_the_token_that_holds_its_blank(tokenizer_folder):
  folder = tokenizer_folder("gpt2")
  theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  one = vocabularies.open_vocabulary(f"hf:{folder}{ONE_TEXT}")
  two = vocabularies.open_vocabulary(f"hf:{folder}")
  answers = {}
  for name, vocabulary in (("one", one), ("two", two)):
    _, ids = joining.texts_to_tokens(vocabulary, "Q: who sells the lamp? A:", "the lamp")
    answers[name] = theirs.id_to_token(ids[0])
  assert answers["one"].startswith("Ġ") and not answers["two"].startswith("Ġ")


@pytest.mark.parametrize("family", ["gpt2", "llama", "sentencepiece"])
def test_one_text_has_no_separator_and_keeps_bos(tokenizer_folder, family):
  place = f"hf:{tokenizer_folder(family)}"
  found = vocabularies.open_vocabulary(place + ONE_TEXT)
  bos = () if family == "gpt2" else (found.bos,)
  assert found.input_frame.prefix == bos and found.input_frame.suffix == ()
  assert found.joining == joining.Joining(answer=" ", examples="\n\n", one_text=True)
  text = "Q: who sells the lamp? A:"
  assert joining.input_tokens(found, text).tolist() == [*bos, *found.encode(text)]
  assert joining.input_tokens(found, text + " \t").tolist() == [*bos, *found.encode(text)]
  assert vocabularies.as_one_text(place) == vocabularies.as_one_text(place + ONE_TEXT)
  assert vocabularies.open_vocabulary(vocabularies.as_one_text(place)).joining == found.joining
  assert vocabularies.is_one_text(place + ONE_TEXT) and not vocabularies.is_one_text(place)
  assert vocabularies.digest(place) != vocabularies.digest(place + ONE_TEXT)


def test_an_input_that_ends_with_its_line_asks_for_the_next_one(tokenizer_folder):
  name = f"hf:{tokenizer_folder('gpt2')}"
  found = vocabularies.open_vocabulary(name + ONE_TEXT)
  for text in ("user\nwho?\nassistant\n", "Q: who?\n\n", "A: \n"):
    assert joining.input_tokens(found, text).tolist() == found.encode(text)
    assert joining.input_tokens(found, text + " ").tolist() == found.encode(text)
  tuned = vocabularies.open_vocabulary(name)
  assert joining.input_tokens(tuned, "Q: ").tolist() == [
    *tuned.encode("Q: "),
    *tuned.input_frame.suffix,
  ]


def test_a_named_family_stays_when_texts_become_one(tokenizer_folder):
  name = f"hf:{tokenizer_folder('llama')}?family=gpt2&separator=%20%3D%3E"
  assert vocabularies.as_one_text(name).endswith("?family=gpt2&separator=%20")
  assert vocabularies.open_vocabulary(name).joining.answer == " =>"


def test_encoder_decoders_read_two_texts(tokenizer_folder):
  for family in ("bart", "t5"):
    place = f"hf:{tokenizer_folder(family)}"
    assert vocabularies.as_one_text(place) == place
    found = vocabularies.open_vocabulary(place)
    assert found.joining == joining.TWO_TEXTS
    text, answer = PAIRS[0]
    assert joining.texts_to_tokens(found, text, answer) == (
      found.encode(text),
      found.encode(answer),
    )
    with pytest.raises(errors.ConfigError, match=r"reads input and target apart: leave the option"):
      vocabularies.open_vocabulary(place + ONE_TEXT)
  assert vocabularies.as_one_text("mt5") == "mt5"


def test_an_answer_that_is_ranked_ends_only_where_targets_are_texts_of_their_own(tokenizer_folder):
  place = f"hf:{tokenizer_folder('gpt2')}"
  one, two = (vocabularies.open_vocabulary(place + option) for option in (ONE_TEXT, ""))
  text, answer = PAIRS[0]
  assert (
    joining.option_tokens(one, text, answer).tolist()
    == one.encode(f"{text} {answer}")[len(one.encode(text)) :]
  )
  assert joining.option_tokens(two, text, answer).tolist() == [*two.encode(answer), two.eos]


def test_no_answer_has_no_tokens(vocabulary):
  context, continuation = joining.texts_to_tokens(vocabulary, "Q: a? A:", "")
  assert context == vocabulary.encode("Q: a? A:") and continuation == []
  assert joining.input_tokens(vocabulary, "").dtype == np.int32


def test_demonstrations_are_written_as_the_query_will_be():
  shown = [("Q: a? A:", "x"), ("Q: b? A: ", "y")]
  joined = templates.join_shots(shown, "Q: c? A:", separator="\n\n", before_answer=" ")
  assert joined == "Q: a? A: x\n\nQ: b? A: y\n\nQ: c? A:"
  tuned = templates.join_shots(shown, "Q: c? A:", separator="\n\n", before_answer="\n")
  assert tuned == "Q: a? A:\nx\n\nQ: b? A: \ny\n\nQ: c? A:"
