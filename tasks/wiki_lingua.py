"""WikiLingua, summaries of English how-to guides: an unseen generation task."""

from tasks import registration

registration.add("wiki_lingua")
