"""Describes the machine and the package versions; results are stored with this description."""

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("tresnet-downstream", "torch", "torchvision", "timm", "numpy", "pycocotools", "faster-coco-eval")


def machine() -> dict[str, str]:
    """Returns the processor, the cores that this process may use, torch's threads and instructions, and the date."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": str(cores),
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the measured packages that are installed."""
    versions_of = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions_of[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions_of


def machine_line() -> str:
    """Returns the machine and the versions in one line."""
    return "; ".join(f"{key}: {value}" for key, value in {**machine(), **versions()}.items())


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
