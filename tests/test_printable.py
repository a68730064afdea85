"""Records keep no password and no token that stands in a URL."""

import json

import pytest

from promot_jax.networks.network import Network
from promot_jax.printable import without_secrets


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("https://ann:p@ss@host/m?version=2", "https://***@host/m?version=2"),
    ("hf:https://ghp_abc@host/x", "hf:https://***@host/x"),
    ("s3://id:key@bucket/m", "s3://***@bucket/m"),
    ("https://h/m?sv=1&sig=a%2Fb&se=9", "https://h/m?sv=1&sig=***&se=9"),
    ("https://h/m?X-Amz-Signature=ab&X-Amz-Security-Token=cd", None),
    ("https://h/m#access_token=ab", "https://h/m#access_token=***"),
    ("--gin.CHECKPOINT='https://h/m?api_key=ab' --seed=1", None),
    # No secret:
    ("abfs://container@account.dfs.core.windows.net/m", "="),
    ("gs://bucket/key=5/token", "="),
    ("hf:google/t5-v1_1-small@main", "="),
    ("https://h/m?design=a&steps=4", "="),
    ("--tokens=5 what?token=5", "="),
  ],
)
def test_what_lets_somebody_in_is_masked_and_nothing_else(text, shown):
  found = without_secrets(text)
  if shown is None:
    assert "ab" not in found and "cd" not in found and "***" in found
  else:
    assert found == (text if shown == "=" else shown)
  assert json.loads(without_secrets(json.dumps({"a": [text, 'x"y']}))) == {"a": [found, 'x"y']}


def test_a_network_is_known_by_its_url_without_the_token():
  first, second = (
    Network(backbone=None, checkpoint=f"https://host/m?token={token}", vocabulary="t5")
    for token in ("abc", "def")
  )
  assert first.identity() == second.identity() == first.about
  assert "abc" not in first.about
