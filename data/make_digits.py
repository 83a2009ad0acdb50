"""Creates the sample data, images of handwritten digits: python data/make_digits.py [--out data/digits]."""

import sys

from tresnet_downstream.cli.digits import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
