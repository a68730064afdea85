"""A data set that TensorFlow Datasets prepared on this machine, as a task of ours and as a seqio task."""

import pytest

from promot_jax.cli.main import main
from promot_jax.data import few_shot, record_files, templates, tfds
from promot_jax.data.task import Source, Task
from promot_jax.data.vocabularies import open_vocabulary
from promot_jax.errors import DataError
from promot_jax.metrics import accuracy
from promot_jax.micro import sources
from tasks import catalog, reading

seqio = pytest.importorskip("seqio")
datasets = pytest.importorskip("tensorflow_datasets")
tf = pytest.importorskip("tensorflow")

NAME = "promot_animals:1.0.0"
SIZES = {"train": 40, "validation": 6}


class PromotAnimals(datasets.core.GeneratorBasedBuilder):
  """Which of two classes an animal is of: made here, without a download."""

  VERSION = datasets.core.Version("1.0.0")

  def _info(self):
    return datasets.core.DatasetInfo(
      builder=self,
      features=datasets.features.FeaturesDict(
        {
          "text": datasets.features.Text(),
          "label": datasets.features.ClassLabel(names=["no", "yes"]),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split) for split in SIZES}

  def _generate_examples(self, split):
    for row in range(SIZES[split]):
      yield row, {"text": f"{split} {row}: the dog", "label": row % 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """The folder in which the data set was prepared."""
  folder = tmp_path_factory.mktemp("tensorflow_datasets")
  no_network = datasets.download.DownloadConfig(try_download_gcs=False)
  PromotAnimals(data_dir=str(folder)).download_and_prepare(download_config=no_network)
  return folder


@pytest.fixture
def folder(prepared, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
  return prepared


def _template(record):
  word = templates.word(record["label"], {"no": "False", "yes": "True"})
  return templates.labelled(f"{record['text']} answer:", word)


ORIGIN = tfds.DataSet(task="tfds_animals", published=NAME)
TASK = Task(
  name="tfds_animals",
  fields=(("text",), ("label",)),
  template=_template,
  labels=("False", "True"),
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={"tfds": Source(origin=ORIGIN, report="validation", sizes=SIZES)},
)


def test_a_task_of_ours_reads_it_with_its_derived_splits_and_demonstrations(
  folder, tokenizer_folder
):
  catalog.add(TASK)
  vocabulary = f"hf:{tokenizer_folder('t5')}"
  name = catalog.resolve("tfds_animals_1shot", source="tfds", vocabulary=vocabulary)

  def load(split, **options):
    lengths = {"inputs": 80, "targets": 8}
    return reading.load_examples(name, split, lengths, vocabulary=vocabulary, **options)

  found = {split: load(split) for split in ("train", "train_strict", "selection", "validation")}
  assert len(found["train"]) == 40 and len(found["validation"]) == 6
  assert len(found["train_strict"]) + len(found["selection"]) == 40 and len(found["selection"])
  for example in found["validation"].records:
    shown, query = example["inputs"].split(" answer: ")
    assert shown.startswith("train ") and query.split(" ", 1)[1].startswith("validation ")
  asked = {f"{each['inputs'].rpartition('answer: ')[2]}" for each in found["selection"].records}
  held_out = [text.split(" ", 1)[1] for text in asked]
  assert all(few_shot.is_held_out(text) for text in held_out)
  assert sorted({each["targets"] for each in found["train"].records}) == ["False", "True"]


def test_it_knows_where_it_is_and_that_it_changed(folder, monkeypatch):
  assert ORIGIN.state() == f"tfds {NAME} in {folder}: prepared"
  before = ORIGIN.digest()
  assert before and ORIGIN.digest() == before
  (info,) = folder.glob("promot_animals/1.0.0/dataset_info.json")
  text = info.read_text()
  info.write_text(text + " ")
  assert ORIGIN.digest() != before
  info.write_text(text)
  monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "nowhere"))
  assert ORIGIN.state().endswith("not prepared yet: TFDS will download it") and not ORIGIN.digest()


def test_a_large_one_is_read_by_number(folder, tokenizer_folder, monkeypatch):
  monkeypatch.setattr(record_files, "LARGE", 1)
  catalog.add(TASK)
  vocabulary, lengths = f"hf:{tokenizer_folder('t5')}", {"inputs": 80, "targets": 8}
  name = catalog.resolve("tfds_animals", source="tfds", vocabulary=vocabulary)
  words = open_vocabulary(vocabulary)
  found = reading.stream(
    name, "train", lengths, vocabulary=vocabulary, words=words, cache_dir=None, report=print
  )
  whole = reading.load_examples(name, "train", lengths, vocabulary=vocabulary)
  chosen, expected = found.select(range(40)), whole.select(range(40))
  assert len(found) == 40 and chosen.records == expected.records
  assert [ids.tolist() for ids in chosen.inputs] == [ids.tolist() for ids in expected.inputs]
  (shard,) = (folder / "promot_animals" / "1.0.0").glob("*-train.tfrecord-*")
  content = shard.read_bytes()
  try:
    shard.write_bytes(content[:-3])
    with pytest.raises(
      DataError, match=r"tfrecord-00000-of-00001 ends inside of the record at byte"
    ):
      reading.stream(
        name, "train", lengths, vocabulary=vocabulary, words=words, cache_dir=None, report=print
      )
  finally:
    shard.write_bytes(content)


def test_a_bucket_is_not_called_unprepared_and_home_is_found(folder, monkeypatch):
  monkeypatch.setenv("HOME", str(folder.parent))
  monkeypatch.setenv("TFDS_DATA_DIR", f"~/{folder.name}")
  assert ORIGIN.state() == f"tfds {NAME} in {folder}: prepared" and ORIGIN.digest()
  monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/data")
  assert (
    ORIGIN.state() == f"tfds {NAME} in gs://bucket/data: not looked at, as it is no local folder"
  )
  assert ORIGIN.is_prepared() is None and not ORIGIN.digest()


def test_a_seqio_task_over_it_is_shown_planned_and_has_demonstrations(folder, tmp_path, capsys):
  def text_to_text(dataset):
    return dataset.map(
      lambda row: {
        "inputs": tf.strings.join([row["text"], " answer:"]),
        "targets": tf.where(row["label"] == 1, "True", "False"),
      }
    )

  words = seqio.Feature(sources.seqio_vocabulary())
  seqio.TaskRegistry.add(
    "seqio_animals",
    source=seqio.TfdsDataSource(tfds_name=NAME, tfds_data_dir=str(folder)),
    preprocessors=[
      text_to_text,
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={"inputs": words, "targets": words},
    metric_fns=[accuracy.accuracy],
  )
  try:
    shown = ["inspect", "data", "seqio_animals_1shot", "--n=2"]
    assert main(shown) == 0
    out = capsys.readouterr().out
    assert "seqio_animals_1shot, split validation, first 2 examples" in out
    assert out.count("answer: ") == 2 and out.count(": the dog answer:") == 4
    plan = ["train", "--gin_file=prompt_tune_rte_micro.gin", f"--model_dir={tmp_path / 'run'}"]
    named = ["--gin.MIXTURE_OR_TASK_NAME='seqio_animals'", "--gin.UNSEEN_TASKS=[]", "--dry_run"]
    assert main([*plan, *named, "--gin.PROMPT_STEPS=None", "--gin.PROMPT_EPOCHS=2"]) == 0
    out = capsys.readouterr().out
    assert "train 'train', choose on 'validation', report 'validation'" in out
    assert "from TfdsDataSource" in out and "40 examples" in out
  finally:
    seqio.TaskRegistry.remove("seqio_animals")
