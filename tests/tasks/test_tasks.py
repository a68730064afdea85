"""Registered tasks on fakes with the fields of TensorFlow Datasets."""

import functools

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import few_shot, tfds

seqio = pytest.importorskip("seqio")
import tasks  # noqa: E402
from tasks import load_examples, sources  # noqa: E402

# Looked up once for thousands of records.
find_task = functools.cache(tasks.find)

tasks.register()

INFERENCE = [
  {"premise": f"P {n}.", "hypothesis": f"H {n}.", "label": n % 2, "idx": n} for n in range(40)
]
RECORDS = {
  "rte": INFERENCE,
  "cb": [{**record, "label": record["idx"] % 3} for record in INFERENCE],
  "snli": [{**record, "label": record["idx"] % 4 - 1} for record in INFERENCE],
  "wic": [
    {"sentence1": f"a {n}", "sentence2": f"b {n}", "word": "bank", "label": n % 2} for n in range(9)
  ],
  "openbookqa": [
    {
      "question": {"stem": f"s{n}?", **{f"choice_{c}": f"{c}{n}" for c in "ABCD"}},
      "answerKey": n % 4,
    }
    for n in range(9)
  ],
  "trivia_qa": [
    {
      "question": f"q{n}?",
      "answer": {"value": f"V{n}", "normalized_value": f"v{n}", "aliases": [f"W{n}", f"V{n}"]},
    }
    for n in range(9)
  ],
  "web_questions": [{"question": f"q{n}?", "answers": [f"a{n}", f"b{n}"]} for n in range(9)],
  "wmt14_en_fr": [{"en": f"cat {n}", "fr": f"chat {n}"} for n in range(9)],
  "wmt16_en_de": [{"en": f"cat {n}", "de": f"Katze {n}"} for n in range(9)],
  "wmt16_en_ro": [{"en": f"cat {n}", "ro": f"pisică {n}"} for n in range(9)],
  "xsum": [{"document": f"long {n}", "summary": f"short {n}"} for n in range(9)],
  "wiki_lingua": [
    {"source": f"long {n}", "target": f"short {n}", "references": [f"short {n}"]} for n in range(9)
  ],
}


def texts(name, split, **options):
  task = seqio.get_mixture_or_task(name)
  found = task.get_dataset(None, split, shuffle=False, **options).as_numpy_iterator()
  return [
    (one["inputs_pretokenized"].decode(), one["targets_pretokenized"].decode()) for one in found
  ]


@pytest.mark.parametrize("task", RECORDS)
def test_a_task_renders_as_the_plain_templates_do(task, fakes, t5):
  usable = [record for record in RECORDS[task] if find_task(task).is_usable(record)]
  expected = [find_task(task).render(record) for record in usable]
  with fakes.in_place_of_tfds(task, {"train": RECORDS[task]}):
    examples = load_examples(f"{task}.tfds.t5", "train", {})
  assert len(examples) == len(expected)
  for number, rendered in enumerate(expected):
    record = examples.records[number]
    assert (record["inputs"], record["targets"]) == (rendered.input, rendered.target)
    assert record["answers"] == list(rendered.answers)
    assert examples.inputs[number].tolist() == [*t5.encode(rendered.input), 1]
    assert examples.targets[number].tolist() == [*t5.encode(rendered.target), 1]


@pytest.mark.parametrize("task", ["rte", "snli", "trivia_qa", "wmt16_en_ro"])
@pytest.mark.parametrize("shots", [1, 4])
def test_few_shot_prompts_are_those_of_the_plain_functions(task, shots, fakes, t5):
  usable = [record for record in RECORDS[task] if find_task(task).is_usable(record)]
  rendered = [find_task(task).render(record) for record in usable]
  pool = few_shot.Demonstrations((one.input, one.target) for one in rendered)
  with fakes.in_place_of_tfds(task, {"train": RECORDS[task], "validation": RECORDS[task][:5]}):
    found = texts(f"{task}_{shots}shot.tfds.t5", "train", seed=3)
    validation = texts(f"{task}_{shots}shot.tfds.t5", "validation", seed=3)
  expected = [(pool.prompt(one.input, shots=shots, seed=3), one.target) for one in rendered]
  assert found == expected
  assert validation == expected[: len(validation)]


def test_demonstrations_do_not_depend_on_order_or_sharding(fakes, t5):
  with fakes.in_place_of_tfds("rte", {"train": INFERENCE}):
    task = seqio.get_mixture_or_task("rte_1shot.tfds.t5")
    whole = texts("rte_1shot.tfds.t5", "train", seed=5)
    parts = []
    for index in range(2):
      shard = seqio.ShardInfo(index, 2)
      part = task.get_dataset(None, "train", shuffle=False, seed=5, shard_info=shard)
      parts += [one["inputs_pretokenized"].decode() for one in part.as_numpy_iterator()]
    shuffled = [
      one["inputs_pretokenized"].decode()
      for one in task.get_dataset(None, "train", shuffle=True, seed=5).as_numpy_iterator()
    ]
  assert sorted(parts) == sorted(shuffled) == sorted(text for text, _ in whole)


def test_targets_can_be_wrapped_while_demonstrations_stay_raw(fakes, t5):
  with fakes.in_place_of_tfds("rte", {"train": INFERENCE}):
    found = texts("rte_1shot.tfds.t5.sentinel", "train")
  assert {target for _, target in found} == {
    "<extra_id_0> True <extra_id_1>",
    "<extra_id_0> False <extra_id_1>",
  }
  assert not any("extra_id" in text for text, _ in found)


def test_the_held_out_part_of_train_is_not_trained_on_nor_demonstrated(fakes, t5):
  with fakes.in_place_of_tfds("rte", {"train": INFERENCE, "validation": INFERENCE[:3]}):
    whole = {text for text, _ in texts("rte.tfds.t5", "train")}
    strict = {text for text, _ in texts("rte.tfds.t5", "train_strict")}
    selection = {text for text, _ in texts("rte.tfds.t5", "selection")}
    assert selection and strict | selection == whole and not strict & selection
    shown = [text for text, _ in texts("rte_4shot.tfds.t5", "selection")]
    assert all(text.count(held) == text.endswith(held) for text in shown for held in selection)


def test_tokens_are_seqios_own_when_nothing_is_dropped_at_the_start(fakes, t5):
  lengths = {"inputs": 12, "targets": 2}
  with fakes.in_place_of_tfds("wmt14_en_fr", {"train": RECORDS["wmt14_en_fr"]}):
    task = seqio.get_mixture_or_task("wmt14_en_fr.tfds.t5")
    expected = list(task.get_dataset(lengths, "train", shuffle=False).as_numpy_iterator())
    examples = load_examples("wmt14_en_fr.tfds.t5", "train", lengths)
  for number, one in enumerate(expected):
    np.testing.assert_array_equal(examples.inputs[number], one["inputs"])
    np.testing.assert_array_equal(examples.targets[number], one["targets"])
    assert one["targets"][-1] == 1


def test_a_malformed_record_stops_the_seqio_pipeline(fakes, t5):
  with (
    fakes.in_place_of_tfds("rte", {"train": [*INFERENCE, {**INFERENCE[0], "label": 5}]}),
    pytest.raises(Exception, match="label 5"),
  ):
    texts("rte.tfds.t5", "train")


def test_a_source_without_a_field_is_refused(fakes, t5):
  spec = {name: one for name, one in fakes.SPECS["rte"].items() if name != "hypothesis"}
  with (
    fakes.in_place_of_tfds("rte", {"train": INFERENCE}, spec),
    pytest.raises(errors.DataError, match=r"rte: the source has no field 'hypothesis'.*premise"),
  ):
    load_examples("rte.tfds.t5", "train", {})


def test_predictions_are_scored_with_the_tasks_metric(fakes, t5):
  task = seqio.get_mixture_or_task("rte.tfds.t5")
  target = task.postprocess_fn("True", example={"answers": np.array([b"True"])}, is_target=True)
  outputs = ["<extra_id_0> True <extra_id_1>", "False", "True Q: next"]
  predictions = [task.postprocess_fn(output, example={}, is_target=False) for output in outputs]
  scores = task.metric_fns[0]([target] * 3, predictions)
  assert scores["accuracy"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(("name", "score"), [("trivia_qa", 100.0), ("web_questions", 0.0)])
def test_answers_are_compared_as_the_data_sets_own_scorer_does(name, score):
  task = seqio.get_mixture_or_task(f"{name}.tfds.t5")
  assert task.metric_fns[0]([["Spider-Man"]], ["Spider Man"]) == {"exact_match": score}


def test_a_version_with_other_choices_can_be_registered(fakes, t5):
  from tasks import registration, trivia_qa

  name = "trivia_qa_normalized.tfds.t5"
  task = trivia_qa.with_target("normalized_value")
  registration.add_version(task, name, place="tfds.t5", shots=1, separator="\n")
  with fakes.in_place_of_tfds(task, {"train": RECORDS["trivia_qa"]}):
    found = texts(name, "train")
  assert found[0][1] == "v0"
  assert "\nQ: q0? A:" in found[0][0]


def test_the_mixture_of_the_paper_is_registered(fakes):
  mixture = seqio.MixtureRegistry.get("rte_and_wmt14_en_fr_1shot.tfds.mt5")
  assert [task.name for task in mixture.tasks] == [
    "rte_1shot.tfds.mt5",
    "wmt14_en_fr_1shot.tfds.mt5",
  ]


def test_an_absent_data_set_says_how_to_get_it(monkeypatch):
  def refuse(self):
    raise OSError("Name or service not known")

  monkeypatch.setattr(tfds.DataSet, "data_source", refuse)
  cb = find_task("cb")
  source = sources.TaskSource(cb, cb.source("tfds").origin)
  with pytest.raises(errors.ConfigError, match=r"super_glue/cb:1.0.2 .*tfds build super_glue/cb"):
    _ = source.splits
  with pytest.raises(errors.ConfigError, match="DATA_SOURCE='micro'"):
    source.get_dataset("train")


def test_a_version_that_tfds_dropped_names_its_successor():
  with pytest.raises(errors.ConfigError, match="PROMOT_TFDS_WMT14_EN_FR=wmt14_translate/fr-en:1"):
    _ = seqio.get_mixture_or_task("wmt14_en_fr.tfds.t5").splits
