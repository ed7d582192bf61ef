"""The commands: `root` declares them, one module each does the work, `failures` says what went wrong."""
