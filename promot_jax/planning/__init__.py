"""What a run will do and what it needs, in lines for people; nothing is run."""
