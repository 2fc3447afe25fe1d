"""Models made smaller or faster, with the change measured."""
