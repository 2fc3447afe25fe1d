"""The ground that everything stands on: errors, registries, strict configuration, tokens and plans."""
