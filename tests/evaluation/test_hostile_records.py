"""What stands in records and names is text to a report, whoever wrote it, or damage."""

import hashlib
import html.parser
import json

import pytest

from hand_made_results import edit, evaluate_by_hand
from promot_jax import errors
from promot_jax.evaluation import plots, report

HOSTILE = '</td><script>alert(1)</script><img src="http://x/y" onerror=1>"\'&'


class _Tags(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags, self.addresses, self.attributes = [], [], set()

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes |= {name for name, _ in attributes}
    self.addresses += [value for name, value in attributes if name in ("src", "href")]


def test_hostile_text_cannot_become_markup(tmp_path):
  evaluate_by_hand(
    tmp_path / "run",
    "promot",
    text=HOSTILE,
    why=HOSTILE,
    variant=HOSTILE,
    backbone=HOSTILE,
    settings={HOSTILE: HOSTILE},
    environment={"device": HOSTILE},
    command=HOSTILE,
  )
  evaluate_by_hand(tmp_path / "odd", HOSTILE, variant=HOSTILE, backbone=HOSTILE)
  output = tmp_path / "report.html"
  report.write([tmp_path], output, formats=("html",), title=HOSTILE)
  page = output.read_text()
  tags = _Tags()
  tags.feed(page)
  assert "alert(1)" in page  # it is there as text
  assert not {"script", "iframe", "object", "link", "form"} & set(tags.tags)
  assert not [name for name in tags.attributes if name.startswith("on")]
  assert tags.addresses
  assert all(address.startswith("data:image/svg+xml;base64,") for address in tags.addresses)


FORGED = (
  "x\n\n# Forged\n\n| a |\n|---|\n| 1 |\n",
  "## y ##",
  "`code` **bold** __b__ ~~s~~",
  "[x](javascript:alert(1)) ![i](http://x/y.png) <http://x/y>",
  "a | b |\n|--|--|",
  "<script>alert(1)</script>",
  "- item\n+ item\n1. item",
  "=====",
  "\u202eevil\u202c \x1b[31m",
  "$x$ http://example.org www.example.org",
)


@pytest.mark.parametrize("name", FORGED)
def test_names_cannot_change_the_structure_of_markdown(tmp_path, name):
  markdown_it = pytest.importorskip("markdown_it")

  def structure(text):
    reader = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = tmp_path / text.encode().hex()[:20]
    facts = {"variant": text, "backbone": text, "why": text, "data": text}
    evaluate_by_hand(page / "run", f"m {text}", settings={text: text}, text=text, **facts)
    report.write([page], page / "report.md", formats=("md",), title=text)
    content = (page / "report.md").read_text()
    assert not [c for c in "\u202e\x1b" if c in content]
    kinds = []
    for token in reader.parse(content):
      kinds.append(token.type)
      inner = [child.type for child in token.children or ()]
      kinds += [kind for kind in inner if kind not in ("text", "text_special")]
    return kinds

  assert structure(name) == structure("plain")


def test_records_edited_by_hand_cannot_become_markup(tmp_path):
  folder = evaluate_by_hand(tmp_path / "run", "promot")
  hostile = "<script>alert(1)</script>"
  edit(
    folder / "run.json", why=hostile, variant=hostile, backbone=hostile, data_sets={"a": hostile}
  )
  for path in folder.glob("*/*.jsonl"):
    line = json.loads(path.read_text())
    path.write_text(json.dumps(line | {"targets": {hostile: 1}, "task": hostile}) + "\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(path.with_suffix(".json"), predictions_sha256=digest)
  report.write([tmp_path], tmp_path / "report.html", formats=("html", "md"))
  for ending in ("html", "md"):
    assert "<script" not in (tmp_path / f"report.{ending}").read_text()


JUNK = [None, True, -(10**400), 1e308, "x", [], [[]], [{}], {"a": {}}, {"accuracy": [1]}]


@pytest.mark.parametrize("part", ["run.json", "*/cb.*.json", "*/cb.*.jsonl"])
@pytest.mark.parametrize("tried", [3, pytest.param(len(JUNK), marks=pytest.mark.slow)])
def test_a_field_of_another_type_is_damage_and_no_bug(tmp_path, monkeypatch, part, tried):
  monkeypatch.setattr(plots, "section_plots", lambda section: {})
  stages = ({"name": "a", "trained": 1, "backbone": 0},)
  folder = evaluate_by_hand(tmp_path / "run", "promot", stages=stages)
  evaluate_by_hand(tmp_path / "base", "pretrained")
  (path,) = folder.glob(part)
  result = path.with_suffix(".json")
  before, result_before = path.read_text(), result.read_text()
  left_out = 0
  for number, field in enumerate(sorted(json.loads(before).keys() - {"sha256", "guarded"})):
    # The quick form begins elsewhere for each field, so that every value is met.
    for value in (JUNK[(tried * number + more) % len(JUNK)] for more in range(tried)):
      path.write_text(json.dumps(json.loads(before) | {field: value}) + "\n")
      result.write_text(path.read_text() if path == result else result_before)
      edit(result, **{} if path == result else {"predictions_sha256": digest_of(path), "count": 1})
      try:
        made, _ = report.write(
          [tmp_path], tmp_path / "report", formats=("html", "md", "csv", "json")
        )
        left_out += bool(made.left_out)
      except errors.PromotError:
        left_out += 1
  assert left_out > 2 * tried


def digest_of(path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
