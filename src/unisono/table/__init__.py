"""Tables: readers, the memory-mapped cache, row filters, splits, writers, schema inference and batching."""
