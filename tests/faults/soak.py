"""Memory and open files of long trainings: ``make soak`` runs this script, epochs and trainings.

``epochs`` trains a small network with the tool, in two worker processes, with a validation and a checkpoint in each
epoch, and reads the memory of all its processes from outside. ``trainings`` calls the Python interface again and again
in one process. Both print what grew, write all readings as CSV, and end with 1 if memory or open files grow.
"""

import argparse
import contextlib
import csv
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults.growth import WARM_UP, growth
from running.small_data import DIGITS, ROOT, make_small_data, options

ENDLESS = 10**6  # epochs
MEGABYTE = 2**20
# Rises up to here do not count: megabytes of memory, numbers of the others.
TOLERANCE = {"memory": 4.0, "mapped files": 0.5, "open files": 0.5, "processes": 0.5}
UNITS = {"memory": "MB"}


def processes_of(pid):
    """A process and all that it started, as far as they live."""
    pids = [pid]
    for known in pids:
        for task in Path(f"/proc/{known}/task").glob("*/children"):
            pids += [int(child) for child in task.read_text().split()]
    return pids


def looked_at(pid):
    """Megabytes of memory, mapped files, open files and processes.

    Of memory that processes share, each counts its part. Files that are mapped, such as libraries, are not memory
    here: other programs have them in memory too, or not.
    """
    pids = processes_of(pid)
    memory = mappings = files = 0
    for each in pids:
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        memory += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024
        mappings += sum(line.split()[4] != "0" for line in Path(f"/proc/{each}/maps").read_text().splitlines())
        files += len(os.listdir(f"/proc/{each}/fd"))
    return {"memory": memory / MEGABYTE, "mapped files": mappings, "open files": files, "processes": len(pids)}


def command_of(task, folder):
    """A training that does not end, of a classifier or of a detector."""
    if task == "classification":
        data = make_small_data(folder / "data")
        changes = options(data, num_workers=2, max_epochs=ENDLESS)
        return ["train_multilabel", DIGITS, "--work-dir", folder / "run", *changes]
    from detection.small_boxes import CONFIG, flags, make_boxes

    changes = flags(
        make_boxes(folder / "data"),
        train_cfg__max_epochs=ENDLESS,
        train_dataloader__num_workers=2,
        train_dataloader__persistent_workers=True,
        val_dataloader__num_workers=2,
        val_dataloader__persistent_workers=True,
    )
    return ["train_detection", CONFIG, "--work-dir", folder / "run", *changes]


def soak_epochs(task, minutes, folder):
    """Reads memory and files of a training from its first checkpoint on, about each second."""
    name, *arguments = command_of(task, folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["NO_ALBUMENTATIONS_UPDATE"] = "1"
    training = subprocess.Popen(
        [sys.executable, ROOT / "tools" / f"{name}.py", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    readings = []
    try:
        while training.poll() is None and not list((folder / "run").glob("epoch_*.pth")):
            time.sleep(1)  # imports and the first epoch are no soak
        start = time.monotonic()
        while training.poll() is None and time.monotonic() - start < 60 * minutes:
            with contextlib.suppress(OSError):  # a process ended meanwhile
                readings.append({"position": time.monotonic() - start, **looked_at(training.pid)})
            time.sleep(1)
        if training.poll() is not None:
            raise SystemExit(f"the training ended by itself, with status {training.returncode}")
    finally:
        training.send_signal(signal.SIGTERM)
        status = training.wait(timeout=120)
    checkpoint = max((folder / "run").glob("epoch_*.pth"), key=os.path.getmtime)
    print(f"{task}: {minutes} minutes, to {checkpoint.stem}; status {status} at SIGTERM")
    return readings


def soak_trainings(count, folder):
    """Reads memory and files of this process after each training."""
    from tresnet_downstream.classification.training import train_multilabel
    from tresnet_downstream.running.config import load_config

    data = make_small_data(folder / "data")
    readings = []
    for number in range(count):
        _, *changes = options(data, num_workers=2 if number % 10 == 0 else 0, max_epochs=2)
        config = load_config(DIGITS, changes)
        config.work_dir = str(folder / f"run_{number}")
        train_multilabel(config)
        del config
        shutil.rmtree(folder / f"run_{number}")
        gc.collect()
        readings.append({"position": number, **looked_at(os.getpid())})
    return readings


def main():
    """Soaks, and gives 1 if something grows."""
    parser = argparse.ArgumentParser(description="Trains for long, and looks whether memory or open files grow.")
    parser.add_argument("what", choices=["epochs", "trainings"])
    parser.add_argument("--task", choices=["classification", "detection"], default="classification")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--csv", type=Path, help="all readings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readings = (
            soak_epochs(arguments.task, arguments.minutes, folder)
            if arguments.what == "epochs"
            else soak_trainings(arguments.count, folder)
        )
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, readings[0])
            writer.writeheader()
            writer.writerows(readings)
    positions = [reading["position"] for reading in readings]
    has_grown = False
    for what, tolerance in TOLERANCE.items():
        line = growth(positions, [reading[what] for reading in readings])
        grows = line.is_growth(tolerance)
        has_grown |= grows
        unit = UNITS.get(what, "")
        print(
            f"{what}: {line.start:.1f} {unit} after the first {WARM_UP:.0%}, then {line.total:+.2f} ± {line.error:.2f} "
            f"{unit} to the end of {len(readings)} readings: {'GROWS' if grows else 'flat'}"
        )
    return int(has_grown)


if __name__ == "__main__":
    sys.exit(main())
