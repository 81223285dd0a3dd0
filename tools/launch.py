"""torchrun that ends with the exit code of the process that failed first; called by launch.sh.

What failed has said why on the standard error; torchrun's traceback would bury it.
"""

from __future__ import annotations

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> int:
    """Start the processes; arguments are torchrun's."""
    try:
        run.main()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code  # killed by a signal, as shells report it
    return 0


if __name__ == "__main__":
    sys.exit(main())
