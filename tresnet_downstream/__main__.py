"""``python -m tresnet_downstream`` runs the command ``tresnet``, for example under ``torchrun -m``."""

import sys

from tresnet_downstream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
