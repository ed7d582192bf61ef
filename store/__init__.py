"""What a node remembers, in SQLite. Knows nothing of the engine, the network or screens."""
