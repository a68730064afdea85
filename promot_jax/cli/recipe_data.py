"""`promot inspect data` of a recipe: its tuned tasks' splits as the model will read them; or of a task.

Labels, lengths, words that the vocabulary lacks, copies inside of a split and between two; then the first
examples as they are rendered.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from promot_jax.cli import directory
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError

_WHOLE: Mapping[str, Any] = {"inputs": None, "targets": None}  # lengths: nothing is cut
_LENGTHS: Mapping[str, int] = {
  "inputs": 512,
  "targets": 128,
}  # at which cuts are counted without a recipe
_COUNTED = 1_000_000  # examples of a split, of which more are not read to be counted
_WORDS = 2000  # different words that are looked up in the vocabulary
_SHOWN = 6


def run(flags: Flags) -> None:
  """Shows the data of the experiment that the flags name by recipe or model directory.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  experiment = directory.experiments(flags)[0]

  from promot_jax.experiments.reader import Reader

  tasks = experiment.tasks
  if experiment.templates is not None and values.name:
    every = [*tasks, *experiment.unseen_tasks]
    tasks = [task for task in every if _base(task) == _base(values.name)]
  if values.name and _base(values.name) not in map(_base, tasks):
    raise ConfigError(f"the recipe does not tune on '{values.name}' but on '{experiment.task}'.")
  if experiment.templates is not None and not values.json:
    for line in _templates(experiment):
      show(line)
  reader = Reader(lambda line: None)
  # Nothing is cut: what the recipe's lengths cut is told beside the lengths.
  read = functools.partial(reader.examples, experiment, lengths=_WHOLE)
  if values.json:
    bases = map(_base, tasks)
    show(json.dumps({base: _as_json(experiment, base, read) for base in bases}))
    return
  for base in map(_base, tasks):
    for line in _lines(experiment, base, read):
      show(line)
  for task in tasks:
    show("")
    split = values.split or next(iter(_splits(experiment, _base(task))))
    show_first(read(task, split, limit=values.n))


def counted(task: str, place: str, split: str | None, *, vocabulary: str) -> Iterator[str]:
  """How many examples the splits of a task have, beside the published numbers, and how long they are.

  What a recipe would refuse is left out and counted.

  Args:
    task, place: of `catalog.resolve` and `catalog.place`.
    split: None: those that train, choose and are reported.
  """
  from promot_jax.data import cache, split_view
  from tasks import catalog, reading

  source = catalog.find(task).source(place)
  plan = source.splits() if source.divisible else None
  names = (plan.train, plan.select, plan.report) if plan and split is None else (split or "",)
  # Once each: a small data set may be chosen and reported on one split.
  for name in dict.fromkeys(names):
    published = source.size(name)
    beside = f", published {published:,}" if published else ""
    if published and published > _COUNTED:
      yield f"\nsplit {name}: not counted{beside}"
      continue
    try:
      found = reading.load_examples(
        task,
        name,
        _WHOLE,
        malformed="skip",
        empty_targets="skip",
        vocabulary=vocabulary,
        cache_dir=cache.default_dir(),
      )
    except ConfigError as error:
      yield f"\nsplit {name}: {error}"
      continue
    yield f"\nsplit {name}: {len(found):,} examples{beside}"
    answers = max(len(record["answers"]) for record in found.records)
    more = f"; up to {answers} accepted" if answers > 1 else ""
    inputs, targets = ([len(ids) for ids in side] for side in (found.inputs, found.targets))
    yield f"  {'read':<18} {split_view.lengths_line(inputs, _LENGTHS['inputs'])}"
    yield f"  {'answered':<18} {split_view.lengths_line(targets, _LENGTHS['targets'])}{more}"
    for why, count in found.lengths.skipped.items():
      yield f"  {'left out':<18} {count} ({why})"


def show_first(examples) -> None:
  """Examples as a model reads them."""
  show(f"{examples.name}, split {examples.split}, first {len(examples)} examples")
  for number, record in enumerate(examples.records):
    end = examples.lengths.input_end
    show(f"\n[{number}] inputs ({len(examples.inputs[number])} tokens with {end})")
    show(f"    {record['inputs']}")
    show(f"    targets: {record['targets']}   answers: {record['answers']}")
    for name, kind in examples.kinds.items():
      show(f"    {name}: {kind.dtype} {list(examples.features[name][number].shape)}")


def _templates(experiment) -> Iterator[str]:
  """Which templates there are, what each is called as a task, and which are trained on."""
  tuned = {name for names in experiment.templates.tuned.values() for name in names}
  for data in experiment.templates.data_sets:
    yield f"{data.name}: {len(data.prompts)} templates of {data.templates_path}"
    for name, prompt in data.prompts.items():
      use = "trains" if name in tuned else "held out"
      how = "chooses" if prompt.ranked else "writes"
      among = f" among {', '.join(map(repr, prompt.labels))}" if prompt.labels else ""
      yield f"  {name:<32} {prompt.name!r}: {use}, {how}{among}"


def _as_json(experiment, base: str, read) -> dict[str, Any]:
  from promot_jax.data import split_view

  earlier: dict[str, split_view.Texts] = {}
  found = {}
  for split in _splits(experiment, base):
    texts = _texts(experiment, base, split, read(base, split, limit=None))
    found[split] = split_view.as_json(texts, earlier)
    earlier[split] = texts
  return found


def _lines(experiment, base: str, read) -> Iterator[str]:
  from promot_jax.data import split_view
  from promot_jax.experiments.reader import text_vocabulary

  words, limits = text_vocabulary(experiment), experiment.feature_lengths
  earlier: dict[str, split_view.Texts] = {}
  for split, uses in _splits(experiment, base).items():
    examples = read(base, split, limit=None)
    texts = _texts(experiment, base, split, examples)
    published = _published(experiment, base, split)
    yield f"{base}, split {split}: {len(examples)} examples{published}; {' and '.join(uses)}"
    found = {
      "targets": split_view.targets_line(texts),
      "read": split_view.lengths_line([len(ids) for ids in examples.inputs], limits["inputs"]),
      "answered": split_view.lengths_line(
        [len(ids) for ids in examples.targets], limits["targets"]
      ),
      "unknown": _unknown(words, texts),
      "copies": split_view.copies_line(texts),
      **{f"in {name} too": split_view.shared_line(texts, each) for name, each in earlier.items()},
    }
    for why, count in examples.lengths.skipped.items():
      found["left out"] = f"{count} ({why})"
    yield from (f"  {name:<18} {line}" for name, line in found.items())
    earlier[split] = texts


def _published(experiment, base: str, split: str) -> str:
  """The published number of examples, of data that others have published."""
  from tasks import catalog

  if experiment.source == "micro" or not catalog.is_ours(base):
    return ""
  size = catalog.find(base).source(experiment.place).size(split)
  return f" (published: {size})" if size else ""


def _splits(experiment, base: str) -> dict[str, list[str]]:
  """The splits that a run uses, each with what for."""
  splits = experiment.splits_of(base)
  if base not in map(_base, experiment.tasks):
    return {splits.report: ["is reported"]}
  found: dict[str, list[str]] = {}
  for split, use in (
    (splits.train, "trains"),
    (splits.select, "chooses the checkpoint"),
    (splits.report, "is reported"),
  ):
    found.setdefault(split, []).append(use)
  return found


def _base(task: str) -> str:
  from tasks import catalog

  return catalog.split_shots(task)[0]


def _texts(experiment, base: str, split: str, examples):
  """The texts with their places: lines of the user's files, else numbers in the split."""
  from promot_jax.data import split_view

  where = [f"{split} {number}" for number in range(len(examples))]
  files = experiment.files_of(base)
  if files is not None and split in files.splits:
    places = [row.where for row in files.rows(split) if not row.problem and row.text.answers]
    # Lines of the file only where each example is known to have one.
    where = places if len(places) == len(examples) else where
  return split_view.Texts(
    where=where,
    inputs=[record["inputs"] for record in examples.records],
    targets=[record["targets"] for record in examples.records],
  )


def _unknown(words, texts) -> str:
  """Words that become the vocabulary's token for what it does not know."""
  counts: dict[str, int] = {}
  for text in (*texts.inputs, *texts.targets):
    for word in text.split():
      counts[word] = counts.get(word, 0) + 1
  looked_at = list(counts)[:_WORDS]
  missing = [word for word in looked_at if words.unknown in words.encode(word)]
  if not missing:
    return "no word"
  missing.sort(key=lambda word: -counts[word])
  shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
  share = 100 * sum(counts[word] for word in missing) / sum(counts[word] for word in looked_at)
  return f"{len(missing)} of {len(looked_at)} different words, {share:.1f} % of the text: {shown}"
