"""``python -m regnet``: the command `regnet`, where the package is not installed."""

import sys

from regnet.cli import main

sys.exit(main())
