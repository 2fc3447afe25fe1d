"""Tables: readers, the cache, filters, splits, schema inference and batches."""
