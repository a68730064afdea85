"""Our model behind lm-evaluation-harness against the harness's own class with the same weights on torch.

The texts, tokens, cuts and windows of the two are compared, not only the network: the models are random, so that
a token too many or too few changes every figure.
"""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("transformers", reason="needs the [torch] extra")
pytest.importorskip("lm_eval", reason="needs the [lm_eval] extra")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

import tiny_transformers  # noqa: E402
from promot_jax import errors  # noqa: E402
from promot_jax.checkpoints import huggingface  # noqa: E402
from promot_jax.data import vocabularies  # noqa: E402
from promot_jax.inference.answering import Form  # noqa: E402
from promot_jax.inference.continuations import Continuations  # noqa: E402
from promot_jax.inference.harness_model import HarnessModel  # noqa: E402
from promot_jax.networks.network import Network  # noqa: E402
from promot_jax.token_ids import TokenIds  # noqa: E402

pytestmark = pytest.mark.parity

LONGEST = 24
PAIRS = [
  ("the cat sees the dog .", " the dog"),
  ("the cat ", "sees the dog"),
  ("the", " a"),
  ("", "the cat sees"),
  ("the cat sees the dog . " * 8, " the cat"),  # longer than the model reads
]
TEXTS = [
  "the cat sees the dog .",
  "a",
  # Ends without a blank, for which transformers' class of T5 tokenizers has no token and the file has one.
  " ".join(["the dog sees the cat and the dog ."] * 6),
]
UNTIL = {"until": ["."], "max_gen_toks": 5}


def requests(kind, arguments):
  return [
    Instance(request_type=kind, doc={}, arguments=each, idx=number)
    for number, each in enumerate(arguments)
  ]


@pytest.fixture(scope="module", params=["gpt2", "t5"])
def both(request, tokenizer_folder, tmp_path_factory):
  """(the harness's model, ours) of one folder."""
  folder = tmp_path_factory.mktemp("models") / request.param
  shutil.copytree(tokenizer_folder(request.param), folder)
  words = vocabularies.open_vocabulary(f"hf:{folder}")
  torch.manual_seed(5)
  special = {"eos_token_id": words.eos, "bos_token_id": words.bos}
  if request.param == "t5":
    special |= {"pad_token_id": words.pad, "decoder_start_token_id": words.pad}
  other = tiny_transformers.build(request.param, vocab_size=words.size, **special)
  with torch.no_grad():
    for parameter in other.parameters():  # else logits are nearly equal
      parameter += 0.2 * torch.randn(parameter.shape)
  other.save_pretrained(folder)
  reads_on = request.param == "gpt2"
  theirs = HFLM(
    pretrained=str(folder),
    backend="causal" if reads_on else "seq2seq",
    max_length=LONGEST,
    batch_size=2,
    device="cpu",
    dtype="float32",
  )
  config = huggingface.config(path=f"hf:{folder}", dropout_rate=0.0, dtype="float32")
  name = vocabularies.as_one_text(f"hf:{folder}")
  ours = HarnessModel(
    Continuations(
      form=Form(
        vocabulary=vocabularies.open_vocabulary(name),
        special=TokenIds.of(config),
        longest_input=17 if reads_on else LONGEST,
        longest_answer=8 if reads_on else LONGEST,
        batch_size=4,
      ),
      model=Network(backbone=config, checkpoint=f"hf:{folder}", vocabulary=name).build(),
      place=lambda batch: batch,
    ),
    name=name,
  )
  return theirs, ours


def test_continuations_are_as_probable(both):
  (written,) = both[0].generate_until(
    requests("generate_until", [("the cat", {"until": ["."], "max_gen_toks": 1})]),
    disable_tqdm=True,
  )
  pairs = [*PAIRS, ("the cat", written)]  # which greedy decoding writes
  theirs, ours = (
    model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True) for model in both
  )
  assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
  np.testing.assert_allclose([p for p, _ in ours], [p for p, _ in theirs], rtol=2e-4)


def test_whole_texts_are_as_probable_in_windows(both, monkeypatch):
  theirs, ours = both
  # The harness's class also scores the end of sequence that T5's tokenizer appends, which is no part of a text
  # (`LM.loglikelihood_rolling`: "the log-probability of the string").
  monkeypatch.setattr(
    theirs, "tok_encode", lambda text: theirs.tokenizer.encode(text, add_special_tokens=False)
  )
  arguments = requests("loglikelihood_rolling", [(text,) for text in TEXTS])
  expected, found = (
    model.loglikelihood_rolling(arguments, disable_tqdm=True) for model in (theirs, ours)
  )
  np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_texts_go_on_alike(both):
  theirs, ours = both
  contexts = ["the cat sees the dog", "a dog and"]
  how = dict(UNTIL)
  if theirs.backend == "seq2seq":
    # Its class lets an encoder-decoder write as many tokens more as the context has, as if they were part of
    # the output; transformers counts the token from which decoding begins.
    how["max_length"] = 1 + UNTIL["max_gen_toks"]
  expected = theirs.generate_until(
    requests("generate_until", [(context, how) for context in contexts]), disable_tqdm=True
  )
  found = ours.generate_until(
    requests(
      "generate_until", [(contexts[0], UNTIL), (contexts[1], {**UNTIL, "do_sample": False})]
    ),
    disable_tqdm=True,
  )
  assert found == expected


def test_settings_that_nobody_knows_and_continuations_without_room_are_refused(both):
  _, ours = both
  with pytest.raises(errors.ConfigError, match="num_beams=4"):
    ours.generate_until(requests("generate_until", [("the", {"num_beams": 4})]))
  with pytest.raises(errors.DataError, match="has room for 24"):
    ours.loglikelihood(requests("loglikelihood", [("the", " the dog" * 40)]))
