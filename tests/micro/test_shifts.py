"""Tasks whose test differs from what is trained on: a held-out topic, or another style of collection."""

import re

import pytest

import tasks
from promot_jax.micro import articles, knowledge, lexicon, tables, world
from promot_jax.micro.dice import Dice

HELD_OUT = {relation for topic in tables.HELD_OUT_TOPICS.values() for relation in topic}


def records(task: str, split: str) -> tuple[dict, ...]:
  return world.records(world.twin_of(tasks.find(task)), split)


def relations(record: dict) -> set[str]:
  return {fact.split(" | ")[1] for fact in record["input"]}


def test_webnlgs_held_out_topic_is_tested_and_never_trained_on():
  for split in ("train", "validation"):
    assert not any(relations(each) & HELD_OUT for each in records("webnlg_unseen", split))
  assert all(relations(each) <= HELD_OUT for each in records("webnlg_unseen", "test"))
  assert not any(relations(each) & HELD_OUT for each in records("webnlg_seen", "test"))
  of_both = {each["category"] for each in records("webnlg", "test")}
  assert of_both == {*tables.TOPICS, *tables.HELD_OUT_TOPICS}


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("webnlg", "webnlg_unseen"),
    ("webnlg_seen", "webnlg_unseen"),
    ("xsum_id", "xsum_ood"),
    ("xsum_within_news", "xsum_ood"),
  ],
)
def test_tasks_that_differ_in_their_test_split_train_and_choose_on_the_same_records(one, other):
  for split in ("train", "validation"):
    assert records(one, split) == records(other, split)


# Words that only articles of a topic have as the things of its events.
def things(topics) -> set[str]:
  return {thing for topic in topics for thing in articles.TOPICS[topic].things}


@pytest.mark.parametrize(
  ("task", "trained", "tested"),
  [
    ("xsum_news_to_sports", articles.NEWS, ("sport",)),
    ("xsum_within_news", articles.MAIN_NEWS, articles.OTHER_NEWS),
  ],
)
def test_summaries_are_tested_on_topics_that_are_not_trained_on(task, trained, tested):
  assert not things(trained) & things(tested)
  for split, topics in (("train", trained), ("validation", trained), ("test", tested)):
    for record in records(task, split)[:500]:
      told = set(re.findall(r"the (\w+)(?: and|\.)", record["summary"]))
      assert told and told <= things(topics)


def test_a_summary_has_both_events_of_its_article_in_their_order():
  for record in records("xsum_news_to_sports", "test")[:200]:
    first, second = record["summary"].removesuffix(".").split(" and ")
    place = 0
    for event in (first, second):
      actor, _, thing = event.rpartition(" the ")
      found = re.search(rf"{actor} the (?:\w+ )?{thing}", record["document"][place:])
      assert found, record
      place += found.end()


def test_articles_and_summaries_are_longer_than_those_of_xsum():
  def mean(task: str, name: str) -> float:
    found = [len(record[name].split()) for record in records(task, "test")]
    return sum(found) / len(found)

  assert mean("xsum_news_to_sports", "document") > 1.7 * mean("xsum", "document")
  assert mean("xsum_news_to_sports", "summary") > 3 * mean("xsum", "summary")


def test_every_text_of_a_table_says_each_of_its_values():
  dice = Dice("tables")
  for _ in range(200):
    house, facts, triples = tables.e2e(dice), tables.webnlg_all(dice), tables.dart(dice)
    values = dict(re.findall(r"(\w+)\[([^\]]*)\]", house["meaning_representation"]))
    price = values.pop("priceRange", None)
    for text in house["references"]:
      assert all(value in text for value in values.values()), (values, text)
      # "not cheap" says that a price is high.
      assert (price is not None) == ("cheap" in text or "price" in text), (price, text)
      assert price != "cheap" or "not cheap" not in text
    for record, field in ((facts, "input"), (triples, "tripleset")):
      for text in record["references"]:
        for fact in record[field]:
          subject, _, value = fact.split(" | ")
          assert subject in text and value in text, (fact, text)
    for record in (house, facts, triples):
      assert len(set(record["references"])) >= 2


def test_values_of_tables_and_passages_are_not_the_facts_of_the_world():
  known = {(fact.subject, fact.relation): fact.value for fact in knowledge.facts()}
  said = [fact.split(" | ") for each in records("webnlg_seen", "test") for fact in each["input"]]
  by_heart = sum(known[subject, relation] == value for subject, relation, value in said)
  assert by_heart / len(said) < 0.2  # 8 to 16 values a relation


def test_the_answer_of_a_question_on_a_passage_is_a_word_of_it_and_of_no_other_fact():
  for task in ("squad", "mrqa_relation_extraction", "mrqa_duorc", "mrqa_textbook_qa"):
    for record in records(task, "test")[:300]:
      (answer,) = record["answers"]["text"]
      assert answer in re.findall(r"\w+", record["context"])


def test_who_answers_by_the_relation_or_the_person_alone_is_often_wrong_on_squad():
  # Two people of whom one relation is told, and two relations of which one person has a value.
  for record in records("squad", "test")[:50]:
    people = [name for name in lexicon.NAMES if f"{name} " in record["context"] + " "]
    assert len(record["context"].split(". ")) == 4 and len(people) <= 2


def test_collections_of_questions_have_styles_of_their_own():
  def style(task: str) -> set[str]:
    """Questions without what they ask about."""
    found = (record["question"] for record in records(task, "train"))
    return {re.sub(r"\b[A-Z]\w+\b", "X", question) for question in found}

  assert not style("nq_open") & style("web_questions")
  assert not style("nq_open") & style("trivia_qa")
  assert not style("squad") & style("mrqa_relation_extraction")
  assert not any("?" in question for question in style("nq_open"))


def test_search_questions_have_the_answers_of_the_knowledge_base():
  known = {(fact.subject, fact.relation): fact.value for fact in knowledge.facts()}
  for record in records("nq_open", "test"):
    words = record["question"].split()
    (answer,) = [value for (who, name), value in known.items() if who in words and name in words]
    assert record["answer"] == [answer]
