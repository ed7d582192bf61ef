"""One module per full-screen view or dialog."""
