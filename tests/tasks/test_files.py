"""Tasks from original files: small ones in the data set's own layout, made here; the real ones where they are."""

import gzip
import json

import pytest

from tasks import catalog


def _json_lines(*records):
  return "".join(json.dumps(record) + "\n" for record in records)


_ITEM = {"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0}
_CHOICES = [{"text": f"to {letter}", "label": letter} for letter in "DBCA"]

_E2E = (
  'mr,ref\n"name[A, B], eatType[pub], familyFriendly[no]","A is a pub."\n'
  '"name[A, B], eatType[pub], familyFriendly[no]","A, a pub."\n'
)
_WEBNLG = """<?xml version='1.0' encoding='UTF-8'?>
<benchmark><entries>
  <entry category="Airport" eid="Id1" size="2">
    <originaltripleset><otriple>not | this | one</otriple></originaltripleset>
    <modifiedtripleset><mtriple>A_B | city | C, D</mtriple><mtriple>C, D | is | "x"</mtriple>
    </modifiedtripleset>
    <lex comment="good" lid="Id1">A B &amp; C.</lex><lex comment="toFix" lid="Id2">A B.</lex>
    <lex comment="good" lid="Id3">Another.</lex>
  </entry>
  <entry category="Athlete"><modifiedtripleset><mtriple>E | born | 1900</mtriple></modifiedtripleset>
    <lex comment="good" lid="Id1">E.</lex></entry>
  <entry category="Artist"><modifiedtripleset><mtriple>F | born | 1900</mtriple></modifiedtripleset>
    <lex comment="toFix" lid="Id1">F.</lex></entry>
</entries></benchmark>
"""


def _packed(*records):
  return gzip.compress(_json_lines(*records).encode())


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
  "copa": (
    "validation",
    {
      "super_glue/COPA/val.jsonl": _json_lines(
        {
          "premise": "The tap ran.",
          "choice1": "It dried.",
          "choice2": "It filled.",
          "question": "effect",
          "label": 1,
        }
      )
    },
    [("Q: The tap ran. What happened as a result? A) It dried. B) It filled. A:", "B", 1)],
  ),
  "boolq": (
    "validation",
    {
      "super_glue/BoolQ/val.jsonl": _json_lines(
        {"question": "is ice cold", "passage": "Ice is cold.", "idx": 0, "label": True}
      )
    },
    [("Ice is cold. question: is ice cold? Is it true or false? answer:", "True", 1)],
  ),
  "nq_open": (
    "second_half",
    {
      "nq_open/NQ-open.dev.jsonl": _json_lines(
        {"question": "first", "answer": ["a"]}, {"question": "who sang it", "answer": ["b", "c"]}
      )
    },
    [("Q: who sang it A:", "b", 2)],
  ),
  "squad": (
    "validation",
    {
      "squad/dev-v1.1.json": json.dumps(
        {
          "data": [
            {
              "paragraphs": [
                {
                  "context": "It was red.",
                  "qas": [
                    {
                      "question": " Which colour? ",
                      "answers": [{"text": "red", "answer_start": 7}, {"text": "red"}],
                    }
                  ],
                }
              ]
            }
          ]
        }
      )
    },
    [("question: Which colour? context: It was red.", "red", 1)],
  ),
  **{
    f"mrqa_{name}": (
      "test",
      {
        f"mrqa/{file}": _packed(
          {"header": {"dataset": "x", "split": "test"}},
          {
            "context": "It was red.",
            "qas": [
              {"question": "Which?", "answers": ["red", "It"]},
              {"question": "When?", "answers": ["was"]},
            ],
          },
        )
      },
      [
        ("question: Which? context: It was red.", "red", 2),
        ("question: When? context: It was red.", "was", 1),
      ],
    )
    for name, file in {
      "bioasq": "BioASQ.jsonl.gz",
      "drop": "DROP.jsonl.gz",
      "duorc": "DuoRC.ParaphraseRC.jsonl.gz",
      "race": "RACE.jsonl.gz",
      "relation_extraction": "RelationExtraction.jsonl.gz",
      "textbook_qa": "TextbookQA.jsonl.gz",
    }.items()
  },
  "e2e": (
    "test",
    {"e2e_nlg/official/testset_w_refs.csv": "\ufeff" + _E2E + '"name[B], area[riverside]","B."\n'},
    [
      ("name : A, B | Type : pub | family friendly : no", "A is a pub.", 2),
      ("name : B | area : riverside", "B.", 1),
    ],
  ),
  "e2e in training": (
    "train",
    {"e2e_nlg/official/trainset.csv": _E2E},
    [
      ("name : A, B | Type : pub | family friendly : no", "A is a pub.", 1),
      ("name : A, B | Type : pub | family friendly : no", "A, a pub.", 1),
    ],
  ),
  "webnlg": (
    "test",
    {"webnlg_2017/test/testdata_with_lex.xml": _WEBNLG},
    [
      ('| A_B : city : C, D | C, D : is : "x"', "A B & C.", 2),
      ("| E : born : 1900", "E.", 1),
    ],
  ),
  "webnlg in training": (
    "train",
    {"webnlg_2017/train/2triples/2triples_Airport_train_challenge.xml": _WEBNLG},
    [
      ('| A_B : city : C, D | C, D : is : "x"', "A B & C.", 1),
      ('| A_B : city : C, D | C, D : is : "x"', "Another.", 1),
      ("| E : born : 1900", "E.", 1),
    ],
  ),
  "webnlg_seen": (
    "test",
    {"webnlg_2017/test/testdata_with_lex.xml": _WEBNLG},
    [('| A_B : city : C, D | C, D : is : "x"', "A B & C.", 2)],
  ),
  "webnlg_unseen": (
    "test",
    {"webnlg_2017/test/testdata_with_lex.xml": _WEBNLG},
    [("| E : born : 1900", "E.", 1)],
  ),
  "dart": (
    "train",
    {
      "dart/dart-v1.1.1-full-train.json": json.dumps(
        [
          {
            "tripleset": [["Mars Hill", "JOINED", "1973"], ["Mars Hill", "IN_STATE", "NC"]],
            "annotations": [{"source": "s", "text": "One."}, {"source": "t", "text": "Two."}],
          }
        ]
      )
    },
    [
      ("Mars Hill : joined : 1973 | Mars Hill : in_state : NC", "One.", 1),
      ("Mars Hill : joined : 1973 | Mars Hill : in_state : NC", "Two.", 1),
    ],
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_record_of_the_original_layout_becomes_its_text(case, original_files):
  split, files, expected = CASES[case]
  task = catalog.find(case.partition(" ")[0])
  origin = task.source(original_files(files)).origin
  texts = [task.render(record) for record in origin.records(split)]
  assert [(text.input, text.target, len(text.answers)) for text in texts] == expected


def test_every_task_has_original_files_and_is_looked_at_here():
  ours = [name for name in catalog.task_names() if catalog.is_ours(name)]
  assert [name for name in ours if "files" not in catalog.find(name).sources] == []
  looked_at = {case.partition(" ")[0] for case in CASES}
  divided = {name for name in ours if name.startswith("xsum_")}  # below
  alike = {"wmt16_en_de"}
  assert set(ours) == looked_at | divided | alike
