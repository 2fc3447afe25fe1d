"""Finding rows by their vectors: indexes, search, and how well a space serves it."""
