"""WebQuestions: closed-book questions; it has no validation split."""

from tasks import registration

registration.add("web_questions")
