"""``python -m mdg.engine.launch``: torchrun without its traceback.

Takes the arguments of ``torchrun``. When a process fails, torchrun raises in the launching process and prints that
traceback below the message of the process; here the exit code is passed on and nothing is added.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main() -> None:
    """Runs torchrun on the command line and exits with the code of the first process that failed."""
    # The launcher's own account of which worker it stopped when, unless something is badly wrong.
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        torchrun()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)


if __name__ == "__main__":
    main()
