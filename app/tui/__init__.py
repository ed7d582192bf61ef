"""The terminal app: screens and widgets. They show what Node says and ask it to act; they own no state."""
