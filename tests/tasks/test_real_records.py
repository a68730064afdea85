"""Real records, brought into the fields of TensorFlow Datasets, through the registered tasks."""

import csv
import json

import pytest

from promot_jax.data.batches import TrainBatches
from promot_jax.token_ids import T5

pytest.importorskip("seqio")
from tasks import load_examples

LENGTHS = {"inputs": 512, "targets": 64}


def json_lines(file):
  return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def labelled(records, classes):
  return [{**record, "label": classes.index(record["label"])} for record in records]


@pytest.fixture(scope="session")
def rte(shared_data):
  """GLUE's RTE is the same data as SuperGLUE's, with other field names."""
  splits = {}
  for split, file in (("train", "train.tsv"), ("validation", "dev.tsv")):
    with open(shared_data / "glue_rte" / file, newline="") as lines:
      rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
      splits[split] = labelled(
        [
          {"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": row["label"]}
          for row in rows
        ],
        ["entailment", "not_entailment"],
      )
  return splits


def test_rte_pads_less_than_a_third_with_six_lengths(rte, fakes, t5):
  with fakes.in_place_of_tfds("rte", rte):
    examples = load_examples("rte.tfds.t5", "train", LENGTHS)
  assert len(examples) == 2490
  assert "nothing cut" in str(examples.lengths)
  batches = TrainBatches(examples, batch_size=64, special=T5)
  assert batches.padding_ratio() < 1.3
  assert len({batches.shape(step) for step in range(39)}) <= 6


def test_cut_inputs_of_rte_are_counted_and_still_end(rte, fakes, t5):
  with fakes.in_place_of_tfds("rte", rte):
    short = load_examples("rte.tfds.t5", "train", {"inputs": 128})
  texts = [
    f"{one['premise']} question: {one['hypothesis']} Is it true or false? answer:"
    for one in rte["train"]
  ]
  longer = sum(len(t5.encode(text)) + 1 > 128 for text in texts)
  assert longer == 474
  assert str(short.lengths) == "inputs cut: 474 of 2490 (19.0 %) > 128 tokens; EOS kept"
  assert max(map(len, short.inputs)) == 128
  assert all(tokens[-1] == 1 for tokens in short.inputs)


def test_rte_at_one_shot_shows_a_training_example(rte, fakes, t5):
  with fakes.in_place_of_tfds("rte", rte):
    examples = load_examples("rte_1shot.tfds.t5", "validation", LENGTHS)
  assert len(examples) == 277
  first = examples.records[0]["inputs"]
  assert first.count("Is it true or false? answer:") == 2
  assert first.endswith(
    "Dana Reeve, the widow of the actor Christopher Reeve, has died of lung cancer at age 44,"
    " according to the Christopher Reeve Foundation. question: Christopher Reeve had an accident."
    " Is it true or false? answer:"
  )
  assert examples.records[0]["answers"] == ["False"]


def test_super_glue_records(shared_data, fakes, t5):
  folder = shared_data / "super_glue"
  cb = {
    split: labelled(json_lines(folder / "CB" / file), ["entailment", "contradiction", "neutral"])
    for split, file in (("train", "train.jsonl"), ("validation", "val.jsonl"))
  }
  wic = {"validation": json_lines(folder / "WiC" / "val.jsonl")}
  wic["validation"] = [{**record, "label": int(record["label"])} for record in wic["validation"]]
  with fakes.in_place_of_tfds("cb", cb):
    examples = load_examples("cb_4shot.tfds.t5", "validation", {"inputs": 1024})
  assert len(examples) == 56
  assert {record["targets"] for record in examples.records} == {"True", "False", "Neither"}
  assert examples.records[0]["inputs"].endswith(
    "Did he think he was helping? question: Valence was helping Is it true or false or neither?"
    " answer:"
  )
  assert examples.records[0]["targets"] == "False"
  with fakes.in_place_of_tfds("wic", wic):
    examples = load_examples("wic.tfds.t5", "validation", LENGTHS)
  assert len(examples) == 638
  assert examples.records[0] == {
    "inputs": "An emerging professional class. Apologizing for losing your temper, even though you"
    " were badly provoked, showed real class. question: The word class is used in the same way in"
    " the two sentences. Is it true or False? answer:",
    "targets": "False",
    "answers": ["False"],
  }


def test_openbookqa_records(shared_data, fakes, t5):
  records = [
    {
      "question": {
        "stem": record["question"]["stem"],
        **{f"choice_{one['label']}": one["text"] for one in record["question"]["choices"]},
      },
      "answerKey": "ABCD".index(record["answerKey"]),
    }
    for record in json_lines(shared_data / "openbookqa" / "dev.jsonl")
  ]
  with fakes.in_place_of_tfds("openbookqa", {"validation": records}):
    examples = load_examples("openbookqa.tfds.t5", "validation", LENGTHS)
  assert len(examples) == 500
  assert examples.records[0]["inputs"] == (
    "Q: Frilled sharks and angler fish live far beneath the surface of the ocean, which is why they"
    " are known as A) Deep sea animals B) fish C) Long Sea Fish D) Far Sea Animals A:"
  )
  assert examples.records[0]["targets"] == "A"


def test_web_questions_records(shared_data, fakes, t5):
  records = [
    {"question": record["qText"], "answers": record["answers"]}
    for record in json.loads((shared_data / "web_questions" / "test.json").read_text())
  ]
  with fakes.in_place_of_tfds("web_questions", {"test": records}):
    examples = load_examples("web_questions.tfds.t5", "test", LENGTHS)
  assert len(examples) == 2032
  assert examples.records[0]["inputs"] == "Q: what does jamaican people speak? A:"
  assert examples.records[0]["answers"] == ["Jamaican Creole English Language", "Jamaican English"]


def test_snli_records(shared_data, fakes, t5):
  folder, classes = shared_data / "snli", ["entailment", "neutral", "contradiction"]
  columns = [(folder / f"{name}.test").read_text().splitlines() for name in ("s1", "s2", "labels")]
  records = [
    {"premise": premise, "hypothesis": hypothesis, "label": classes.index(label)}
    for premise, hypothesis, label in zip(*columns)
  ][:500]
  records[7]["label"] = -1
  with fakes.in_place_of_tfds("snli", {"test": records}):
    examples = load_examples("snli.tfds.t5", "test", LENGTHS)
  assert len(examples) == 499
  assert examples.records[0]["targets"] == "Neither"
