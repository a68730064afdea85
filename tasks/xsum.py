"""XSum, one-sentence summaries of BBC articles: an unseen generation task."""

from tasks import registration

registration.add("xsum")
