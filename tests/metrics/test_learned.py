"""Metrics that score by a neural model: the real calls with tiny models and stand-ins, and what is missing.

BERTScore and MoverScore are compared with plain versions over the same tiny BERT.  BLEURT's package and
COMET's program stand in for themselves by what their documentation says they take and give.
"""

import functools
import itertools
import math
import sys
import types

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.metrics import bertscore, bleurt, comet, metric, moverscore, registry

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += ["the", "cat", "sat", "on", "mat", "a", "dog", "ran", "##s", "."]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
  """Folder of a BERT of 3 layers and 15 pieces, for at most 12 of them."""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  folder = tmp_path_factory.mktemp("bert")
  (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  config = transformers.BertConfig(
    vocab_size=len(PIECES),
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
  )
  torch.manual_seed(0)
  transformers.BertModel(config).save_pretrained(folder)
  tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=12)
  tokenizer.save_pretrained(folder)
  return folder


@functools.cache
def vectors(folder, text, layer):
  """(pieces, unit vectors) of a text, its ends included."""
  import torch
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModel.from_pretrained(folder).eval()
  batch = tokenizer(text, return_tensors="pt")
  with torch.no_grad():
    hidden = model(**batch, output_hidden_states=True).hidden_states[layer][0].double().numpy()
  pieces = tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
  return pieces, hidden / np.linalg.norm(hidden, axis=1, keepdims=True)


@pytest.mark.parity
def test_bertscore_matches_each_word_with_the_most_alike(tiny_bert):
  pytest.importorskip("bert_score", reason="needs pip install 'promot_jax[bertscore]'")
  reference, output = "the dogs sat on a mat", "the cat ran"
  (_, theirs), (_, ours) = (vectors(tiny_bert, text, 2) for text in (reference, output))
  # The package's two ends of a text weigh nothing, but a word may be most alike to one.
  alike = ours @ theirs.T
  precision, recall = alike.max(1)[1:-1].mean(), alike.max(0)[1:-1].mean()
  found = bertscore.BertScore(model=str(tiny_bert), layers=2)([reference], [output])
  expected = [2 * precision * recall / (precision + recall), precision, recall]
  assert list(found.values()) == pytest.approx([100 * each for each in expected], abs=1e-3)


@pytest.mark.parity
def test_bertscore_takes_the_best_reference_and_gives_nothing_for_nothing(tiny_bert):
  pytest.importorskip("bert_score", reason="needs pip install 'promot_jax[bertscore]'")
  metric_ = bertscore.BertScore(model=str(tiny_bert), layers=2)
  rows = metric_.statistics(
    [["a dog", "the cat sat"], ["a", ""], ["", ""]], ["the cat sat", "", "a"]
  )
  assert rows[0, 1:] == pytest.approx([100, 100, 100], abs=1e-3)
  assert rows[1:, 1:].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parity
def test_moverscore_is_one_less_the_cheapest_transport(tiny_bert):
  pytest.importorskip("ot", reason="needs pip install 'promot_jax[moverscore]'")
  optimize = pytest.importorskip("scipy.optimize")
  references = ["the dogs sat on a mat .", "a cat"]
  outputs = ["the cat ran", "a dog sat ."]

  def weighed(text, texts):
    pieces, units = vectors(tiny_bert, text, 3)
    holding = {
      piece: sum(piece in vectors(tiny_bert, each, 3)[0] for each in texts) for piece in pieces
    }
    kept = [i for i, piece in enumerate(pieces) if piece not in ("##s", ".") and holding[piece] < 2]
    weights = np.asarray([math.log(3 / (holding[pieces[i]] + 1)) for i in kept])
    return units[kept], weights / weights.sum()

  expected = []
  for reference, output in zip(references, outputs, strict=True):
    (u, p), (v, q) = weighed(reference, references), weighed(output, outputs)
    costs = np.linalg.norm(u[:, None] - v[None], axis=-1)
    rows = [np.repeat(np.eye(len(p))[i], len(q)) for i in range(len(p))]
    columns = [np.tile(np.eye(len(q))[j], len(p)) for j in range(len(q))]
    flow = optimize.linprog(costs.ravel(), A_eq=[*rows, *columns], b_eq=[*p, *q])
    expected.append(100 * (1 - flow.fun))
  scorer = moverscore.MoverScore(model=str(tiny_bert), batch_size=1)
  found = scorer.statistics(references, outputs)[:, 1]
  assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parity
def test_moverscore_of_equal_texts_is_whole_and_of_no_words_nothing(tiny_bert):
  pytest.importorskip("ot", reason="needs pip install 'promot_jax[moverscore]'")
  scorer = moverscore.MoverScore(model=str(tiny_bert))
  targets = [["a dog", "the cat"], "a mat", ""]
  assert scorer.statistics(targets, ["the cat", "", "on"])[:, 1] == pytest.approx(
    [100, 0, 0], abs=1e-3
  )


@pytest.mark.parity
@pytest.mark.parametrize("kind", [bertscore.BertScore, moverscore.MoverScore])
def test_a_model_that_is_nowhere_is_refused(kind, tmp_path, monkeypatch):
  pytest.importorskip("bert_score" if kind is bertscore.BertScore else "ot")
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  settings = {"layers": 1} if kind is bertscore.BertScore else {}
  with pytest.raises(errors.ConfigError, match=r"cannot load its model '.*none'.*name a folder"):
    kind(model=str(tmp_path / "none"), **settings)(["a"], ["a"])


class StandIn:
  """BLEURT's scorer, whose score is the number of common letters."""

  def __init__(self, checkpoint):
    self.checkpoint = checkpoint

  def score(self, *, references, candidates, batch_size):
    assert isinstance(references, list)
    assert isinstance(candidates, list)
    assert batch_size == 3
    pairs = zip(references, candidates, strict=True)
    return [len(set(one) & set(other)) / 10 for one, other in pairs]


@pytest.fixture
def bleurt_package(monkeypatch):
  package = types.ModuleType("bleurt.score")
  package.BleurtScorer = StandIn
  monkeypatch.setitem(sys.modules, "bleurt", types.ModuleType("bleurt"))
  monkeypatch.setitem(sys.modules, "bleurt.score", package)


def test_bleurt_takes_the_best_reference(bleurt_package, tmp_path):
  (tmp_path / "bleurt_config.json").write_text("{}")
  scorer = bleurt.Bleurt(checkpoint=str(tmp_path), batch_size=3)
  rows = scorer.statistics([["abc", "xyz", ""], "no"], ["abx", "on"])
  assert rows[:, 1] == pytest.approx([20, 20])
  assert scorer([["abc"]], ["abc"]) == pytest.approx({"bleurt": 30})


def test_bleurt_needs_a_checkpoint(bleurt_package, tmp_path):
  with pytest.raises(
    errors.ConfigError, match=r"no checkpoint in '.*bleurt_config.json.*BLEURT-20"
  ):
    bleurt.Bleurt(checkpoint=str(tmp_path))(["a"], ["a"])


PROGRAM = """#!{python}
import json, sys
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1:3] == ["--quiet", "--only_system"], sys.argv
if options["--model"] == "none":
  sys.exit("no such model")
texts = {{name: open(options[name]).read().split("\\n")[:-1] for name in ("-s", "-r", "-t")}}
data = [
  {{"src": s, "ref": r, "mt": t, "COMET": (s == "quelle") + (r == t) / 2}}
  for s, r, t in zip(texts["-s"], texts["-r"], texts["-t"], strict=True)
]
json.dump({{options["-t"]: data}}, open(options["--to_json"], "w"))
"""


@pytest.fixture
def comet_program(tmp_path, monkeypatch):
  program = tmp_path / "comet-score"
  program.write_text(PROGRAM.format(python=sys.executable))
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path))


def test_comet_gets_source_reference_and_output(comet_program):
  targets = [
    metric.Sourced(source="quelle", references=("a", "b\nc")),
    metric.Sourced(source="andere", references=("d", "")),
  ]
  rows = comet.Comet(model="tiny").statistics(targets, ["b c", ""])
  assert rows[:, 1].tolist() == [150, 0]


def test_comet_without_sources_is_refused():
  with pytest.raises(
    errors.DataError, match=r"example 1 has none; give the targets as metric.Sourced"
  ):
    comet.comet([metric.Sourced(source="a", references=("b",)), "b"], ["b", "b"])


def test_what_comet_says_of_its_failure_is_shown(comet_program):
  target = metric.Sourced(source="a", references=("b",))
  with pytest.raises(errors.ConfigError, match="'none' and said: no such model"):
    comet.Comet(model="none")([target], ["b"])


@pytest.mark.parametrize(
  ("name", "advice"),
  [
    ("bertscore", r"package bert_score.*pip install 'promot_jax\[bertscore\]'"),
    ("moverscore", r"package ot.*pip install 'promot_jax\[moverscore\]'"),
    ("bleurt", "package bleurt.*pip install 'bleurt @ git"),
    ("comet", "program 'comet-score'.*pipx install unbabel-comet"),
    ("coco_rougeL", r"package pycocoevalcap.*pip install 'promot_jax\[metrics\]'"),
    ("cider", r"package pycocoevalcap.*pip install 'promot_jax\[metrics\]'"),
    ("meteor", r"package pycocoevalcap.*pip install 'promot_jax\[metrics\]'"),
    ("meteor_nltk", r"package nltk.*pip install 'promot_jax\[metrics\]'"),
  ],
)
def test_what_is_not_installed_is_said_with_the_line_that_installs_it(
  name, advice, monkeypatch, tmp_path
):
  for absent in ("bert_score", "ot", "bleurt", "pycocoevalcap", "nltk"):
    loaded = [each for each in sys.modules if each.split(".")[0] == absent]
    for module in itertools.chain(loaded, [absent]):
      monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setenv("PATH", str(tmp_path))
  target = metric.Sourced(source="a", references=("b",))
  with pytest.raises(errors.ConfigError, match=advice):
    registry.find(name)([target], ["b"])


class WordNet:
  """Synonyms of two words, in the shape of nltk's reader."""

  def synsets(self, word):
    group = {"couch", "sofa"}
    lemma = [types.SimpleNamespace(name=lambda each=each: each) for each in sorted(group)]
    return [types.SimpleNamespace(lemmas=lambda: lemma)] if word in group else []


def test_nltks_meteor_matches_words_stems_and_synonyms():
  from promot_jax.metrics import meteor

  scorer = meteor.NltkMeteor(wordnet=WordNet())
  # 4 of 4 words match in one piece: F 1, penalty 0.5 (1/4)^3.
  for output in ("the old couch sagged", "the old sofa sagging"):
    assert scorer(["the old couch sagged"], [output])["meteor_nltk"] == pytest.approx(
      100 * (1 - 0.5 / 64)
    )


def test_nltks_wordnet_is_asked_for_where_it_is_absent(monkeypatch):
  corpus = pytest.importorskip("nltk.corpus")

  def absent():
    raise LookupError("resource not found")

  monkeypatch.setattr(corpus, "wordnet", types.SimpleNamespace(ensure_loaded=absent))
  with pytest.raises(
    errors.ConfigError, match=r"nltk's WordNet.*python -m nltk.downloader wordnet"
  ):
    registry.find("meteor_nltk")(["a"], ["a"])
