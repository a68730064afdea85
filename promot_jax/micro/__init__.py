"""The built-in synthetic world: small records, text and a vocabulary for runs without a network."""
