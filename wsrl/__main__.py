"""``python -m wsrl`` is the command ``wsrl``."""

import sys

from wsrl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
