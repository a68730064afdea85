"""How a model comes to be: architecture, first values, vocabulary, and methods with trained values."""
