"""A task that a user registered with seqio in a module of his own, through the commands."""

import json
import sys
import textwrap

import pytest

from promot_jax.cli.main import main
from promot_jax.evaluation.results import ResultStore

MODULE = '''
"""Which colour a sentence names; as T5X users register tasks: sources, preprocessors, metrics of seqio."""

import functools

import seqio
import tensorflow as tf

from promot_jax.micro import sources

WORDS = seqio.Feature(sources.seqio_vocabulary(), add_eos=True)
FEATURES = {"inputs": WORDS, "targets": WORDS, "rejected": WORDS}  # the last is carried along


def dataset(split, shuffle_files=False, seed=None):
  rows = 24 if split == "train" else 6
  colours = ["red" if row % 2 else "blue" for row in range(rows)]
  return tf.data.Dataset.from_tensor_slices({
    "text": [f"the {colour} dog sees the cat" for colour in colours],
    "colour": colours,
    "weight": [float(row) for row in range(rows)],
  })


def name(ds):
  return ds.map(lambda row: {
    "inputs": tf.strings.join(["question: ", row["text"], " answer:"]),
    "targets": row["colour"],
    "rejected": tf.where(row["colour"] == "red", "blue", "red"),
    "weight": row["weight"],
  })


def postprocess(output, example=None, is_target=False):
  assert example["weight"].dtype == "float32", example
  return {"answer": output.strip(), "weight": float(example["weight"]) + 1}


def weighted(targets, predictions):
  total = sum(target["weight"] for target in targets)
  right = sum(
    target["weight"]
    for target, found in zip(targets, predictions)
    if target["answer"] == found["answer"]
  )
  return {"weighted": 100 * right / total, "answers": len(targets)}


def lengths(targets, predictions):
  return {"longest": 250.0}


def likelihood(targets, scores):
  return {"likelihood": scores.mean(), "scored": len(targets)}


seqio.TaskRegistry.add(
  "colour",
  source=seqio.FunctionDataSource(
    dataset, splits=["train", "dev"], num_input_examples={"train": 24, "dev": 6}
  ),
  preprocessors=[
    name,
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
  ],
  output_features=FEATURES,
  postprocess_fn=postprocess,
  metric_fns=[weighted, lengths, likelihood],
)
with open(LINES, "w") as lines:
  lines.write("a cat\\tun chat\\n" * 9)
seqio.TaskRegistry.add(
  "french",
  source=seqio.TextLineDataSource({"train": LINES, "validation": LINES}),
  preprocessors=[
    functools.partial(
      seqio.preprocessors.rekey, key_map={"inputs": "text", "targets": "text"}
    ),
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos,
  ],
  output_features=FEATURES,
  metric_fns=[],
)
seqio.MixtureRegistry.add("both", [("colour", 3), ("french", 1)])
'''
FLAGS = [
  "--gin_file=prompt_tune_rte_micro.gin",
  "--gin.PROMPT_STEPS=2",
  "--gin.PROMPT_EVAL_PERIOD=2",
  "--gin.BATCH_SIZE=8",
  "--gin.VALIDATION_METRIC='weighted'",
  "--gin.UNSEEN_TASKS=[]",
]
COLOUR = "--gin.MIXTURE_OR_TASK_NAME='colour'"


@pytest.fixture
def module(tmp_path):
  """The user's file; what it registers is gone afterwards."""
  file = tmp_path / "my_tasks.py"
  code = textwrap.dedent(MODULE).replace("LINES", repr(str(tmp_path / "lines.tsv")))
  file.write_text(code)
  yield file
  forget()


def forget():
  """What the user's module registered, as in a new process."""
  seqio = sys.modules.get("seqio")
  if seqio is not None:
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
      for name in ("both", "colour", "french"):
        if name in registry.names():
          registry.remove(name)
  for name in ("task_module_my_tasks", "my_tasks"):
    sys.modules.pop(name, None)


def run(capsys, *arguments):
  forget()
  code = main(list(arguments))
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def test_its_examples_are_shown(module, capsys):
  shown = ["inspect", "data", "colour", f"--task_module={module}", "--split=dev", "--n=1"]
  code, out, err = run(capsys, *shown)
  assert code == 0, err
  assert "question: the blue dog sees the cat answer:" in out and "targets: blue" in out
  assert "rejected: int32 [2]" in out


def test_it_is_planned_with_its_own_splits_and_size(module, tmp_path, capsys):
  flags = ["train", *FLAGS, COLOUR, f"--task_module={module}", f"--model_dir={tmp_path / 'run'}"]
  epochs = ["--gin.PROMPT_STEPS=None", "--gin.PROMPT_EPOCHS=3", "--gin.TRAIN_EXAMPLES=None"]
  code, out, err = run(capsys, *flags, *epochs, "--dry_run")
  assert code == 0, err
  assert "data      colour: train 'train', choose on 'dev', report 'dev'" in out
  assert "seqio task 'colour', from FunctionDataSource" in out
  assert "24 examples" in out


def test_it_is_trained_on_evaluated_resumed_and_reported(module, tmp_path, capsys):
  folder = tmp_path / "run"
  flags = ["train", *FLAGS, COLOUR, f"--task_module={module}", f"--model_dir={folder}"]
  code, out, err = run(capsys, *flags, "--gin.METRIC='weighted'")
  assert code == 0, err
  (result,) = [each for each in results(folder) if each.task == "colour"]
  assert (result.metric, result.count, result.split) == ("weighted", 6, "dev")
  assert result.scores["answers"] == 6.0 and result.scores["longest"] == 250.0
  assert result.scores["likelihood"] < 0 and result.scores["scored"] == 6.0
  code, _, err = run(capsys, "eval", f"--model_dir={folder}", "--tasks=colour")
  assert code == 2
  assert "'colour' is not known" in err and "--task_module=MODULE" in err
  again = [
    "eval",
    f"--model_dir={folder}",
    f"--task_module={module}",
    "--tasks=colour",
    "--limit=4",
    "--shots=0,1",
    "--json",
  ]
  code, out, err = run(capsys, *again)
  assert code == 0, err
  assert [(each["task"], each["shots"]) for each in json.loads(out)] == [
    ("colour", 0),
    ("colour", 1),
  ]
  questions = tmp_path / "questions.jsonl"
  questions.write_text(json.dumps({"inputs": "question: the red dog sees the cat answer:"}) + "\n")
  asked = ["infer", f"--model_dir={folder}", f"--task_module={module}", f"--input={questions}"]
  code, out, err = run(capsys, *asked, "--output=-")
  assert code == 0, err
  assert "prediction" in out
  code, out, err = run(capsys, "report", str(folder))
  assert code == 0, err
  assert "colour" in (folder / "report.md").read_text()


def results(folder):
  store = ResultStore(folder / "evaluation")
  return [each for name in store.checkpoints() for each in store.results(name)]


def test_a_mixture_is_drawn_by_its_own_rates(module):
  from promot_jax.cli import task_modules
  from tasks import catalog, registered

  task_modules._run(module)
  assert catalog.members("both") == ["colour", "french"]
  assert catalog.members("both_4shot") == ["colour_4shot", "french_4shot"]
  assert registered.rates("both") == (3.0, 1.0)
  assert registered.rates("colour") is None


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--gin.MIXTURE_OR_TASK_NAME='colours'"], "did you mean colour"),
    (
      ["--gin.MIXTURE_OR_TASK_NAME='colour_1shot'", "--gin.USE_CACHED_TASKS=True"],
      "no demonstrations",
    ),
    (["--gin.MIXTURE_OR_TASK_NAME='french'"], "no metric"),
    ([COLOUR, "--gin.TASK_SPLITS={'report': 'tset'}"], "no split 'tset'"),
    ([COLOUR, "--gin.TASK_SPLITS={'test': 'dev'}"], "'train', 'select', 'report'"),
    ([COLOUR, "--gin.METRIC='f1'"], "its metrics give weighted, answers, longest"),
    ([COLOUR, "--gin.USE_CACHED_TASKS=True"], "colour"),
  ],
)
def test_what_does_not_fit_is_said_in_a_sentence(module, flags, message, tmp_path, capsys):
  every = ["train", *FLAGS, *flags, f"--task_module={module}", f"--model_dir={tmp_path / 'run'}"]
  code, _, err = run(capsys, *every)
  assert code in (2, 65), err
  assert message in err and "Traceback" not in err


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ("no_such_module", "there is no such module"),
    ("./no_such_file.py", "there is no such file"),
    ("broken.py", "failed when it was imported: ValueError: on purpose"),
  ],
)
def test_a_module_that_cannot_be_imported_is_named(given, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "broken.py").write_text("raise ValueError('on purpose')\n")
  code, _, err = run(capsys, "inspect", "data", "colour", f"--task_module={given}")
  assert code == 2 and message in err


def test_a_gin_file_alone_never_imports_it(module, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  recipe = tmp_path / "own.gin"
  recipe.write_text(
    "from __gin__ import dynamic_registration\nimport my_tasks\n"
    "include 'prompt_tune_rte_micro.gin'\nMIXTURE_OR_TASK_NAME = 'colour'\n"
  )
  code, _, err = run(
    capsys, "train", f"--gin_file={recipe}", f"--model_dir={tmp_path / 'run'}", "--dry_run"
  )
  assert code == 2 and "my_tasks" in err and "--gin_allow_imports" in err
  assert "my_tasks" not in sys.modules
  monkeypatch.syspath_prepend(str(tmp_path))
  allowed = ["--gin_allow_imports=my_tasks", "--dry_run", f"--model_dir={tmp_path / 'run'}"]
  small = [flag for flag in FLAGS if flag.startswith("--gin.")]
  code, out, err = run(capsys, "train", f"--gin_file={recipe}", *small, *allowed)
  assert code == 0, err
  assert "data      colour: train" in out


def write_cached(folder):
  """The 'dev' split of 'colour' as `seqio_cache_tasks` leaves it: one example, with other words."""
  import seqio
  import tensorflow as tf

  from promot_jax.micro import sources

  words = sources.seqio_vocabulary()
  place = folder / "colour"
  place.mkdir(parents=True)
  row = {"inputs": words.encode("the cat sees the dog answer:"), "targets": words.encode("red")}
  row["rejected"] = words.encode("blue")
  features = {
    name: tf.train.Feature(int64_list=tf.train.Int64List(value=ids)) for name, ids in row.items()
  }
  features["weight"] = tf.train.Feature(float_list=tf.train.FloatList(value=[2.0]))
  example = tf.train.Example(features=tf.train.Features(feature=features))
  with tf.io.TFRecordWriter(str(place / "dev.tfrecord-00000-of-00001")) as writer:
    writer.write(example.SerializeToString())
  told = {name: {"shape": [None], "dtype": "int32"} for name in row}
  told["weight"] = {"shape": [], "dtype": "float32"}
  info = {"num_shards": 1, "features": told, "seqio_version": seqio.__version__}
  (place / "info.dev.json").write_text(json.dumps(info))
  (place / "stats.dev.json").write_text(json.dumps({"examples": 1}))
  (place / "COMPLETED").write_text("")


def test_cached_tasks_are_read_from_the_folders_that_were_named(module, tmp_path, monkeypatch):
  pytest.importorskip("seqio")
  import seqio

  from promot_jax.cli import flags, task_modules
  from tasks import load_examples

  monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])
  write_cached(tmp_path / "cached")
  forget()
  arguments = ["inspect", "data", "colour", f"--task_module={module}"]
  parsed = flags.parse([*arguments, f"--seqio_additional_cache_dirs={tmp_path / 'cached'}"])
  task_modules.load(parsed.values)
  cached = load_examples("colour", "dev", {}, use_cached=True)
  (record,) = cached.records
  assert record["example"]["weight"] == 2.0
  assert (record["inputs"], record["targets"]) == ("the cat sees the dog answer:", "red")
  assert len(load_examples("colour", "dev", {})) == 6
