"""infraxa: an open market for AI inference, in one terminal."""

__version__ = "0.1.0"
