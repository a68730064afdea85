"""Agreement between processes: what each of them gets from what all of them told.

`exchange` stands for the collective: the test is one process of several, and says what the others
tell.  Real processes are in tests/scale.
"""

import json

import pytest

from promot_jax import errors, hosts


@pytest.fixture
def process(monkeypatch):
  """Makes this process number `me` of as many as `others` has entries; others' own is ignored."""

  def become(me, others):
    monkeypatch.setattr(hosts, "count", lambda: len(others))
    monkeypatch.setattr(hosts.jax, "process_index", lambda: me)

    def gathered(value):
      told = [json.loads(json.dumps(other)) for other in others]
      told[me] = json.loads(json.dumps(value))
      return told

    monkeypatch.setattr(hosts, "_all_gathered", gathered)

  return become


FINE = [None, None]
FULL = [None, ["CannotWrite", "the disk is full"]]


def test_a_process_that_is_alone_just_calls():
  assert hosts.count() == 1 and hosts.is_first() and not hosts.several()
  assert hosts.gather(3) == [3]
  assert hosts.first(lambda: {"a": 1}) == {"a": 1}
  assert hosts.together(object) is not None
  assert hosts.only_first(lambda: 5) == hosts.in_turn(lambda: 5) == 5
  assert hosts.anywhere("SIGTERM") and not hosts.anywhere(None)
  assert not hosts.of_all(errors.Preempted("x")).of_all


def test_all_get_what_the_first_process_found(process):
  process(1, [[{"step": 4}, None], FINE])
  assert hosts.first(lambda: pytest.fail("only process 0 looks")) == {"step": 4}


def test_a_failure_of_another_process_is_raised_here_as_what_it_is(process):
  process(1, [FULL, FINE])
  with pytest.raises(errors.CannotWrite, match=r"^the disk is full$") as raised:
    hosts.together(lambda: 3)
  assert raised.value.of_all
  process(0, [FINE, FINE, FULL])
  with pytest.raises(errors.CannotWrite, match=r"^process 2 of 3: the disk is full$"):
    hosts.together(lambda: 3)


def test_an_unknown_failure_of_another_process_names_it(process):
  process(0, [FINE, [None, ["KeyError", "'x'"]]])
  with pytest.raises(errors.PromotError, match="process 1 of 2 failed with KeyError: 'x'"):
    hosts.first(lambda: 3)


def test_of_several_failures_the_first_process_speaks_for_all(process):
  def fail():
    raise errors.DataError("mine")

  process(1, [FULL, FINE])
  with pytest.raises(errors.CannotWrite):
    hosts.together(fail)
  process(0, [FINE, FULL])
  with pytest.raises(errors.DataError, match="mine") as raised:
    hosts.together(fail)
  assert raised.value.of_all


def test_a_failure_that_all_know_is_not_told_again(process):
  process(1, [FULL, FINE])

  def inner():
    hosts.first(lambda: 1)

  with pytest.raises(errors.CannotWrite, match="the disk is full"):
    hosts.together(inner)  # a second exchange would wait for processes that have gone


def test_a_flag_of_any_process_counts(process):
  process(0, [FINE, [True, None]])
  assert hosts.anywhere(None)
  process(0, [FINE, [False, None]])
  assert not hosts.anywhere(None)


def test_the_first_process_prepares_and_the_others_follow(process):
  calls = []
  process(1, [FINE, FINE])
  assert hosts.in_turn(lambda: calls.append("once") or 7) == 7
  assert calls == ["once"]
  assert hosts.only_first(lambda: calls.append("no")) is None
  assert calls == ["once"]


def test_the_first_process_holds_what_all_need(process):
  class Held:
    open = False

    def __enter__(self):
      Held.open = True

    def __exit__(self, *_):
      Held.open = False

  for me, expected in ((0, True), (1, False)):
    process(me, [FINE, FINE])
    with hosts.held_by_first(Held):
      assert Held.open is expected
    assert not Held.open


def test_a_directory_that_only_the_first_process_sees_is_refused(process, tmp_path):
  process(1, [[".shared-abc", None], FINE])
  with pytest.raises(errors.ConfigError, match="file system that all hosts have mounted"):
    hosts.check_shared(tmp_path, seconds=0.1)
  process(0, [FINE, FINE])
  hosts.check_shared(tmp_path, seconds=0.1)
  assert not list(tmp_path.iterdir())


def test_votes_take_the_largest_number():
  votes = hosts.Votes()
  assert [int(votes.cast(number)) for number in (0, 2, 1)] == [0, 2, 1]
