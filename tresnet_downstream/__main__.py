"""``python -m tresnet_downstream`` is the command ``tresnet``; torchrun starts it so, with ``-m``."""

import sys

from tresnet_downstream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
