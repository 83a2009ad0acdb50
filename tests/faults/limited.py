"""Runs a tool with a resource limit: python limited.py RESOURCE LIMIT TOOL [ARGUMENT]..."""

import resource
import sys

import torch
from running.small_data import tool

from tresnet_downstream.command_line import run

if __name__ == "__main__":
    _, name, limit, command, *arguments = sys.argv
    torch.set_num_threads(1)
    main = tool(command)
    if name != "none":
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (int(limit), resource.getrlimit(kind)[1]))
    sys.exit(run(main, arguments))
