"""`python -m curate`, so that `accelerate launch -m curate ...` works."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line on the words given to this process."""
    from curate.cli import main as run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
