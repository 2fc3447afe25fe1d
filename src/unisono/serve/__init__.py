"""A model or an index over HTTP, with a page to look at it: batching, limits, and nothing that comes from elsewhere."""
