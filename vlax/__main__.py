"""python -m vlax COMMAND: what an installed vlax does as `vlax COMMAND`."""

import sys

from vlax.commands import front

if __name__ == "__main__":
    sys.exit(front.main())
