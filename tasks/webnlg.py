"""WebNLG 2017: facts in words; tested on topics that are trained on and on others."""

from collections.abc import Collection

from promot_jax.data import original_files, templates, tfds, triple_files
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import registry
from promot_jax.micro import tables, world

# In distribution of Hewitt et al. (2021), whose text counts nine; the challenge's seen topics.
SEEN = [
  "Astronaut",
  "University",
  "Monument",
  "Building",
  "ComicsCharacter",
  "Food",
  "Airport",
  "SportsTeam",
  "City",
  "WrittenWork",
]
UNSEEN = ["Athlete", "Artist", "MeanOfTransportation", "CelestialBody", "Politician"]


def _template(record: Record) -> templates.Rendered:
  """'| subject : property : object | ...', as Li & Liang (2021) write it."""
  facts = (fact.split(" | ") for fact in record["input"])
  # The bar in front of every fact, the first one too.
  text = " ".join("| " + " : ".join(parts) for parts in facts)
  return templates.references(text, [record.get("target", ""), *record["references"]])


def files(topics: Collection[str], size: int) -> Source:
  """Its XML files with a test split of some topics.

  Args:
    size: entries of that split.
  """

  def tested(entry: triple_files.Entry) -> Record | None:
    # Entries of other topics take no part and are not counted.
    return _record(entry) if entry.category in topics else None

  read = triple_files.entries
  learnt = {"train": ("webnlg_2017/train/*/*.xml",), "validation": ("webnlg_2017/dev/*/*.xml",)}
  return original_files.source(
    Layout(splits=learnt, rows=read, record=_record),
    Layout(splits={"test": ("webnlg_2017/test/testdata_with_lex.xml",)}, rows=read, record=tested),
    references="references",
    sizes={"train": 18_025, "validation": 871, "test": size},
  )


def in_micro_world(tested: world.Draw) -> Source:
  """Its twin, which trains on some topics, with the test split that `tested` draws."""
  return world.source("webnlg", tables.webnlg, draw_for_test=tested, pretrained=False)


def _record(entry: triple_files.Entry) -> Record | None:
  """None where every text is marked as one to be mended."""
  texts = [text for comment, text in entry.texts if comment == "good"]
  found = {"input": triple_files.triples(entry), "references": texts, "category": entry.category}
  return found if texts else None


TASK = Task(
  name="webnlg",
  fields=(("input",), ("references",), ("target",)),
  optional=(("target",),),
  template=_template,
  metric="bleu",
  metric_fns=registry.official("webnlg"),
  sources={
    # Release 3, with other topics: not the data of the papers.
    "tfds": Source(origin=tfds.DataSet(task="webnlg", published="gem/web_nlg_en:1.1.0")),
    "files": files((*SEEN, *UNSEEN), 1862),
    "micro": in_micro_world(tables.webnlg_all),
  },
)
