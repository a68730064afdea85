"""Tasks from original files: small ones in the data set's own layout, made here; the real ones where they are."""

import json
import pathlib

import pytest

from promot_jax import errors
from promot_jax.cli.main import main
from tasks import catalog


def _json_lines(*records):
  return "".join(json.dumps(record) + "\n" for record in records)


_ITEM = {"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0}
_CHOICES = [{"text": f"to {letter}", "label": letter} for letter in "DBCA"]

# task -> split, {file below DATA_DIR: its content}, [(input, target, answers) of each record]
CASES = {
  "rte": (
    "validation",
    {"super_glue/RTE/val.jsonl": _json_lines({**_ITEM, "label": "not_entailment"})},
    [("It rains. question: It is wet. Is it true or false? answer:", "False", 1)],
  ),
  "rte of GLUE": (
    "train",
    {"glue_rte/train.tsv": 'index\tsentence1\tsentence2\tlabel\n0\t"Yes.\tNo."\tentailment\n'},
    [('"Yes. question: No." Is it true or false? answer:', "True", 1)],
  ),
  "cb": (
    "train",
    {"super_glue/CB/train.jsonl": _json_lines({**_ITEM, "label": "neutral"})},
    [("It rains. question: It is wet. Is it true or false or neither? answer:", "Neither", 1)],
  ),
  "wic": (
    "validation",
    {
      "super_glue/WiC/val.jsonl": _json_lines(
        {"word": "run", "sentence1": "A run.", "sentence2": "I run.", "label": False, "start1": 2}
      )
    },
    [
      (
        "A run. I run. question: The word run is used in the same way in the two sentences. Is it true"
        " or False? answer:",
        "False",
        1,
      )
    ],
  ),
  "snli": (
    "test",
    {
      "snli_1.0/snli_1.0_test.jsonl": _json_lines(
        {"gold_label": "contradiction", "sentence1": "A dog.", "sentence2": "A cat."}
      )
    },
    [("A dog. question: A cat. Is it true or false or neither? answer:", "False", 1)],
  ),
  "snli of e-SNLI": (
    "validation",
    {"snli/s1.dev": "A dog .\n", "snli/s2.dev": "A pet .\n", "snli/labels.dev": "entailment\n"},
    [("A dog . question: A pet . Is it true or false or neither? answer:", "True", 1)],
  ),
  "openbookqa": (
    "validation",
    {
      "OpenBookQA-V1-Sep2018/Data/Main/dev.jsonl": _json_lines(
        {"id": "1", "question": {"stem": "Where?", "choices": _CHOICES}, "answerKey": "B"}
      )
    },
    [("Q: Where? A) to A B) to B C) to C D) to D A:", "B", 1)],
  ),
  "trivia_qa": (
    "validation",
    {
      "trivia_qa/qa/web-dev.json": json.dumps(
        {
          "Data": [
            {
              "Question": "Which street?",
              "Answer": {
                "Value": "Sunset Blvd",
                "NormalizedValue": "sunset blvd",
                "Aliases": ["Sunset Boulevard", "Sunset Blvd"],
              },
            }
          ]
        }
      )
    },
    [("Q: Which street? A:", "Sunset Blvd", 2)],
  ),
  "web_questions": (
    "train",
    {
      "web_questions/webquestions.examples.train.json": json.dumps(
        [
          {
            "utterance": "who?",
            "targetValue": '(list (description "Jazmyn \\"J\\" Bieber") (description Jaxon))',
          }
        ]
      )
    },
    [("Q: who? A:", 'Jazmyn "J" Bieber', 2)],
  ),
  "wmt14_en_fr": (
    "train",
    {
      "wmt14_en_fr/train/b.fr-en.en": "Two\u2028lines\n",
      "wmt14_en_fr/train/b.fr-en.fr": "Deux\n",
      "wmt14_en_fr/train/a.fr-en.en": "One\n",
      "wmt14_en_fr/train/a.fr-en.fr": "Un\n",
    },
    [
      ("Translate English to French: One", "Un", 1),
      ("Translate English to French: Two\u2028lines", "Deux", 1),
    ],
  ),
  "wmt16_en_ro": (
    "test",
    {"wmt/eng-ron/newstest2016.eng": "One\n", "wmt/eng-ron/newstest2016.ron": "Un\n"},
    [("Translate English to Romanian: One", "Un", 1)],
  ),
  "xsum by lines": (
    "train",
    {"xsum/train.source": "It rained.\n", "xsum/train.target": "Rain.\n"},
    [("Article: It rained. One sentence summary:", "Rain.", 1)],
  ),
  "wiki_lingua": (
    "validation",
    {
      "wiki_lingua/english/val.src.en": "Cut it.\n",
      "wiki_lingua/english/val.tgt.en": "Cut.\n",
    },
    [("Article: Cut it. One sentence summary:", "Cut.", 1)],
  ),
}


def write(folder: pathlib.Path, files: dict[str, str]) -> str:
  for name, content in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return catalog.place("files", str(folder))


@pytest.mark.parametrize("case", CASES)
def test_a_record_of_the_original_layout_becomes_its_text(case, tmp_path):
  split, files, expected = CASES[case]
  task = catalog.find(case.partition(" ")[0])
  origin = task.source(write(tmp_path, files)).origin
  texts = [task.render(record) for record in origin.records(split)]
  assert [(text.input, text.target, len(text.answers)) for text in texts] == expected


def test_every_task_has_original_files():
  missing = [name for name in catalog.task_names() if "files" not in catalog.find(name).sources]
  assert missing == []


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
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_have_the_published_numbers_of_records(name, shared_data):
  task = catalog.find(name)
  origin = task.source(catalog.place("files", str(shared_data))).origin
  for split, count in REAL[name].items():
    records = list(origin.records(split))
    assert len(records) == count == sum(bool(task.render(record).input) for record in records)


@pytest.fixture
def two_records(tmp_path):
  """RTE's validation split, whose second record has no known label."""
  records = [{**_ITEM, "label": label} for label in ("entailment", "maybe")]
  write(tmp_path, {"super_glue/RTE/val.jsonl": _json_lines(*records)})
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
  assert "It rains. question: It is wet." in capsys.readouterr().out


def test_a_file_that_breaks_while_it_is_read_is_named_in_one_sentence(
  tmp_path, tokenizer_folder, capsys
):
  write(
    tmp_path,
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


def _xsum(folder, *, listed: bool) -> str:
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
  return write(folder, files)


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
def test_xsum_is_divided_by_the_address_of_the_article(name, train, test, listed, tmp_path):
  task = catalog.find(name)
  origin = task.source(_xsum(tmp_path, listed=listed)).origin
  for split, numbers in (("train", train), ("test", test)):
    texts = [task.render(record) for record in origin.records(split)]
    assert [text.target for text in texts] == [f"Summary {number}." for number in numbers]
    assert texts[0].input == (f"Article: First.\nSecond {numbers[0]}. One sentence summary:")


def test_xsum_without_addresses_is_refused_with_what_is_needed(tmp_path):
  place = _xsum(tmp_path, listed=True)
  (tmp_path / "xsum" / "XSum-WebArxiveUrls.txt").unlink()
  task = catalog.find("xsum_within_news")
  record = next(task.source(place).origin.records("train"))
  with pytest.raises(errors.DataError, match=r"1.summary: .*addresses beside it, xsum/XSum-WebArx"):
    task.render(record)
