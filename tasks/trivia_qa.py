"""TriviaQA without context: closed-book questions; exact match over all aliases."""

from tasks import registration

registration.add("trivia_qa")
