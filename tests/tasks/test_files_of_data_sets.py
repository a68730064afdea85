"""The original files of data sets: the real ones where they are, XSum's divisions, and what is refused."""

import json

import pytest

from promot_jax import errors
from promot_jax.cli.main import main
from tasks import catalog

_ITEM = {"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0}


def json_lines(*records):
  return "".join(json.dumps(record) + "\n" for record in records)


# Data set -> split -> records of the files that this project tests with; the published numbers but where said.
REAL = {
  "rte": {"train": 2490, "validation": 277, "test": 3000},
  "cb": {"validation": 56, "train": 32},  # 32 of 250
  "wic": {"validation": 638},
  "openbookqa": {"train": 4957, "validation": 500, "test": 500},
  "snli": {"validation": 9842, "test": 9824},
  "trivia_qa": {"validation": 1000},  # a sample
  "web_questions": {"train": 3778, "test": 2032},
  "wmt14_en_fr": {"test": 3003},
  "wmt16_en_de": {"test": 2999},
  "wmt16_en_ro": {"test": 1999},
  "copa": {"validation": 100},
  "nq_open": {"validation": 3610, "first_half": 1805, "second_half": 1805, "efficientqa_dev": 1800},
  "squad": {"validation": 1190},  # XQuAD
  "e2e": {"validation": 547, "test": 630},
  "webnlg": {"train": 18_025, "validation": 871, "test": 1862},
  "webnlg_seen": {"test": 971},
  "webnlg_unseen": {"test": 891},
  "dart": {"validation": 2768, "test": 5097},
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_have_the_published_numbers_of_records(name, shared_data):
  task = catalog.find(name)
  origin = task.source(catalog.place("files", str(shared_data))).origin
  for split, count in REAL[name].items():
    records = list(origin.records(split))
    assert len(records) == count == sum(bool(task.render(record).input) for record in records)


@pytest.fixture
def two_records(tmp_path, original_files):
  """RTE's validation split, whose second record has no known label."""
  records = [{**_ITEM, "label": label} for label in ("entailment", "maybe")]
  original_files({"super_glue/RTE/val.jsonl": json_lines(*records)})
  return tmp_path


def test_a_folder_has_to_be_named_for_files(capsys):
  assert main(["inspect", "data", "rte", "--source=files"]) == 2
  assert "DATA_DIR does not say below which folder" in capsys.readouterr().err


def test_a_bad_record_is_refused_with_file_and_line_or_counted(
  two_records, tokenizer_folder, capsys
):
  flags = ["inspect", "data", "rte", "--source=files", f"--data_dir={two_records}"]
  flags.append(f"--vocabulary=hf:{tokenizer_folder('gpt2')}")
  assert main(flags) == 65
  assert "val.jsonl:2: label 'maybe' is none of entailment" in capsys.readouterr().err
  assert main([*flags, "--gin.MALFORMED='skip'"]) == 0
  shown = capsys.readouterr().out
  assert "It rains. question: It is wet." in shown
  assert "split validation: 1 examples, published 277" in shown
  assert "split train: DATA_DIR=" in shown and "no files for split 'train'" in shown
  assert "left out           1 (malformed records)" in shown and "(at most 512)" in shown


def test_a_file_that_breaks_while_it_is_read_is_named_in_one_sentence(
  tmp_path, original_files, tokenizer_folder, capsys
):
  original_files(
    {"wmt/eng-fra/newstest2014.eng": "a\nb\n", "wmt/eng-fra/newstest2014.fra": b"A\n\xff\n"},
  )
  flags = ["inspect", "data", "wmt14_en_fr", "--source=files", f"--data_dir={tmp_path}"]
  assert main([*flags, "--split=test", f"--vocabulary=hf:{tokenizer_folder('gpt2')}"]) == 65
  error = capsys.readouterr().err
  assert "split test: " in error and "newstest2014.fra:2 is no UTF-8: byte 0xff" in error
  assert "function_node" not in error


_ADDRESSES = {
  "1": "http://www.bbc.co.uk/news/uk-england-birmingham-1",
  "2": "http://www.bbc.com/sport/football/2",
  "3": "http://www.bbc.co.uk/news/uk-england-3",
  "4": "http://www.bbc.co.uk/news/magazine-4",
  "5": "http://www.bbc.co.uk/newsbeat/5",
}


def _xsum(original_files, *, listed: bool) -> str:
  """Five articles, all of them in each split; their addresses in a list, or in their files."""
  files = {
    "xsum/XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json": json.dumps(
      {key: list(_ADDRESSES) for key in ("train", "validation", "test")}
    )
  }
  for number, address in _ADDRESSES.items():
    files[f"xsum/bbc-summary-data/{number}.summary"] = (
      f"[SN]URL[SN]\n{'' if listed else address}\n\n[SN]TITLE[SN]\nT\n\n[SN]FIRST-SENTENCE[SN]\n"
      f"Summary {number}.\n\n[SN]RESTBODY[SN]\nShare this with\nFirst.\nSecond {number}.\n"
    )
  if listed:
    lines = [f"http://web.archive.org/web/2017/{address}\n" for address in _ADDRESSES.values()]
    files["xsum/XSum-WebArxiveUrls.txt"] = "".join(lines)
  return original_files(files)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
  ("name", "train", "test"),
  [
    ("xsum", "12345", "12345"),
    ("xsum_news_to_sports", "134", "2"),
    ("xsum_within_news", "13", "4"),
    ("xsum_id", "1", "1"),
    ("xsum_ood", "1", "333"),  # of all three splits
  ],
)
def test_xsum_is_divided_by_the_address_of_the_article(name, train, test, listed, original_files):
  task = catalog.find(name)
  origin = task.source(_xsum(original_files, listed=listed)).origin
  for split, numbers in (("train", train), ("test", test)):
    texts = [task.render(record) for record in origin.records(split)]
    assert [text.target for text in texts] == [f"Summary {number}." for number in numbers]
    assert texts[0].input == (f"Article: First.\nSecond {numbers[0]}. One sentence summary:")


def test_xsum_without_addresses_is_refused_with_what_is_needed(tmp_path, original_files):
  place = _xsum(original_files, listed=True)
  (tmp_path / "xsum" / "XSum-WebArxiveUrls.txt").unlink()
  task = catalog.find("xsum_within_news")
  record = next(task.source(place).origin.records("train"))
  with pytest.raises(errors.DataError, match=r"1.summary: .*addresses beside it, xsum/XSum-WebArx"):
    task.render(record)


_UNEQUAL = """<benchmark>
<entry category="Artist"><modifiedtripleset><mtriple>E | born</mtriple></modifiedtripleset>
<lex comment="good">E.</lex></entry></benchmark>
"""
_BOMB = """<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<benchmark><entries><entry><lex>&b;</lex></entry></entries></benchmark>
"""


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (_BOMB, r"xml:2 defines a document type or entities .* fill all memory"),
    ("<benchmark>\n<entry>\n</benchmark>", r"xml:3 is no XML: mismatched tag"),
    ("<html></html>", r"xml has no <entry>"),
    (
      b"<benchmark><entry>\n<lex>\xff</lex></entry></benchmark>",
      r"xml:2 is no XML: .*invalid token",
    ),
  ],
)
def test_xml_that_cannot_be_used_is_refused_with_its_line(content, expected, original_files):
  origin = catalog.find("webnlg").source(
    original_files({"webnlg_2017/test/testdata_with_lex.xml": content})
  )
  with pytest.raises(errors.DataError, match=expected):
    origin.origin.records("test")


@pytest.mark.parametrize(
  ("name", "file", "content", "expected"),
  [
    (
      "webnlg",
      "webnlg_2017/test/testdata_with_lex.xml",
      _UNEQUAL,
      r"webnlg: .*xml:2: triple 'E \| born' is not 'subject \| property \| object'",
    ),
    (
      "e2e",
      "e2e_nlg/official/testset_w_refs.csv",
      'mr,ref\n"name(A)","A."\n',
      r"e2e: .*csv:2: 'name\(A\)' is not 'name\[VALUE\]",
    ),
    (
      "copa",
      "super_glue/COPA/test.jsonl",
      json_lines({"premise": "a", "choice1": "b", "choice2": "c", "question": "why"}),
      r"copa: .*jsonl:1: question 'why' is none of cause, effect",
    ),
    (
      "mrqa_race",
      "mrqa/RACE.jsonl",
      json_lines({"header": {}}, {"context": "x"}),
      r"mrqa_race: .*jsonl:2: there is no 'question'",
    ),
  ],
)
def test_a_record_that_is_none_is_refused_with_its_line(
  name, file, content, expected, original_files
):
  task = catalog.find(name)
  with pytest.raises(errors.DataError, match=expected):
    for record in task.source(original_files({file: content})).origin.records("test"):
      task.render(record)


def test_little_data_is_a_split_of_every_task(original_files):
  """Its demonstrations are of the subsample itself."""
  from tasks import sources

  records = [{**_ITEM, "hypothesis": f"Line {n}.", "label": "entailment"} for n in range(90)]
  bad = {**_ITEM, "label": "maybe"}
  place = original_files({"super_glue/RTE/train.jsonl": json_lines(bad, *records)})
  task = catalog.find("rte")
  found = {}
  for split in ("train_50_0", "dev_50_0"):
    dataset = sources.task_source(task, place, 1).get_dataset(split, shuffle=True)
    found[split] = list(dataset.as_numpy_iterator())
  lines = {
    split: {element["hypothesis"].decode() for element in elements}
    for split, elements in found.items()
  }
  assert {split: len(texts) for split, texts in lines.items()} == {"train_50_0": 50, "dev_50_0": 15}
  assert not lines["train_50_0"] & lines["dev_50_0"]
  for element in (element for elements in found.values() for element in elements):
    shown = element["demonstrations"][0][0].decode()
    assert any(line in shown for line in lines["train_50_0"] - {element["hypothesis"].decode()})
