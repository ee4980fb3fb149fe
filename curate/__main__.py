"""`python -m curate`, so that `accelerate launch -m curate ...` works."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line on the words given to this process; Ctrl-C is answered from the first moment."""
    try:
        from curate.cli import main as run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        # Before the run folder is held nothing was begun, so there is nothing to clean up either.
        os.write(2, b"curate: interrupted before anything was begun; the same command starts again\n")
        os._exit(130)


if __name__ == "__main__":
    main()
