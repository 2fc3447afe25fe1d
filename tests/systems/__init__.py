"""The exact properties of published systems, one module a recipe."""
