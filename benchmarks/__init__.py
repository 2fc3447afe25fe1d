"""Evidence: what the package reaches, how fast and in how much memory, recorded with command, seed, spread and machine."""
