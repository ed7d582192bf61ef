"""`python -m infraxa` is the same program as `infraxa`."""

import sys

from infraxa.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
