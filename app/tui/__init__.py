"""The terminal app: screens and widgets. They show what Node says and ask Node to act; they own no state of their own."""
