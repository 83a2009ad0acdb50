"""Exports a model to ONNX or OpenVINO, optionally in int8: python tools/export.py --help."""

import sys

from tresnet_downstream.cli.export import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
