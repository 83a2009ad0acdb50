"""Full, read-only and removed disks, and system limits: a training ends with one line and loses nothing."""

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from detection import small_boxes
from faults import disks
from faults.disks import disk, enlarge, mountable, read_only, rooms  # noqa: F401 - a fixture
from running import small_data
from running.small_data import call, start

from tresnet_downstream.running.runner import FolderRunner

pytestmark = [pytest.mark.faults, pytest.mark.slow]
LIMITED = Path(__file__).with_name("limited.py")
EPOCHS = 3
LAST = f"epoch_{EPOCHS}.pth"


class Multilabel:
    tool, config, make_data = "train_multilabel", small_data.DIGITS, staticmethod(small_data.make_small_data)

    @staticmethod
    def options(data, num_workers):
        return small_data.options(data, max_epochs=EPOCHS, num_workers=num_workers)


class Detection:
    tool, config, make_data = "train_detection", small_boxes.CONFIG, staticmethod(small_boxes.make_boxes)

    @staticmethod
    def options(data, num_workers):
        workers = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        changes = {f"{split}_dataloader__{key}": value for split in ("train", "val") for key, value in workers.items()}
        return small_boxes.flags(data, train_cfg__max_epochs=EPOCHS, **changes)


class Training:
    """A training of a task, and how it ends undisturbed."""

    def __init__(self, task, folder):
        self.task, self.data = task, task.make_data(folder / "data")
        self.undisturbed = folder / "undisturbed"
        assert self.in_process(self.undisturbed)[0] == 0

    def arguments(self, work_dir, *flags, num_workers=0):
        return [self.task.config, "--work-dir", work_dir, *flags, *self.task.options(self.data, num_workers)]

    def in_process(self, work_dir, *flags, num_workers=0):
        """Trains; gives exit status and standard error."""
        status, _, err = call(self.task.tool, self.arguments(work_dir, *flags, num_workers=num_workers))
        return status, err

    def ends_in_one_line(self, work_dir, status, err, *words):
        """The training must have ended with status 2 and a line, and have left whole files alone."""
        assert status == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        for word in words:
            assert word.lower() in err.lower(), err
        assert not disks.partial_files(work_dir)
        for name, path in disks.files_of(work_dir).items():
            if path.suffix == ".pth":
                torch.load(path, weights_only=True)
            if name in ("last_validation.json", "run.json"):
                json.loads(path.read_text())

    def resumes(self, work_dir):
        """Resumed, the training must end as the undisturbed one did, bit for bit."""
        status, err = self.in_process(work_dir, "--resume")
        assert status == 0, err
        assert not disks.partial_files(work_dir)
        expected, resumed = (torch.load(folder / LAST, weights_only=True) for folder in (self.undisturbed, work_dir))
        for key in ("state_dict", "optimizer", "param_schedulers"):
            assert disks.same(expected[key], resumed[key]), key
        checkpoints = [sorted(path.name for path in folder.glob("*.pth")) for folder in (self.undisturbed, work_dir)]
        assert checkpoints[0] == checkpoints[1]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[Multilabel, Detection], ids=["multilabel", "detection"])
def training(request, tmp_path_factory):
    if request.param is Detection:
        pytest.importorskip("mmdet", reason="needs the detection set-up")
    return Training(request.param, tmp_path_factory.mktemp("training"))


@pytest.fixture
def disturb(monkeypatch):
    """Calls a function once, before the second step of the second epoch."""

    def install(disturbance):
        original = FolderRunner.call_hook

        def call_hook(runner, name, **arguments):
            if name == "before_train_iter" and runner.epoch == 1 and arguments["batch_idx"] == 1:
                monkeypatch.setattr(FolderRunner, "call_hook", original)
                disturbance()
            original(runner, name, **arguments)

        monkeypatch.setattr(FolderRunner, "call_hook", call_hook)

    return install


@pytest.mark.parametrize("share", range(disks.NUM_DISKS))
def test_training_on_a_full_disk(training, share, tmp_path, mountable):  # noqa: F811
    # Most is needed while the last checkpoint is written: the two before it are still there.
    used = [path.stat().st_size for path in training.undisturbed.rglob("*") if path.is_file()]
    needed = sum(used) + (training.undisturbed / LAST).stat().st_size
    with disk(tmp_path / "disk", rooms(needed)[share]) as folder:
        status, err = training.in_process(folder / "run")
        training.ends_in_one_line(folder / "run", status, err, str(folder), "no space is left")
        enlarge(folder)
        training.resumes(folder / "run")


def test_training_in_a_folder_that_is_read_only(training, tmp_path, mountable):  # noqa: F811
    with disk(tmp_path / "disk", 2**20) as folder, read_only(folder):
        status, err = training.in_process(folder / "run")
    training.ends_in_one_line(folder / "run", status, err, str(folder), "read-only")


def test_training_whose_folder_becomes_read_only(training, tmp_path, disturb, mountable):  # noqa: F811
    work_dir = tmp_path / "run"
    mounted = read_only(work_dir)
    disturb(mounted.__enter__)
    status, err = training.in_process(work_dir)
    mounted.__exit__(None, None, None)
    training.ends_in_one_line(work_dir, status, err, str(work_dir), "read-only")
    training.resumes(work_dir)


def test_training_whose_folder_vanishes(training, tmp_path, disturb):
    work_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    disturb(lambda: work_dir.rename(elsewhere))
    status, err = training.in_process(work_dir)
    assert not work_dir.exists()
    training.ends_in_one_line(elsewhere, status, err, str(work_dir), "is gone")
    elsewhere.rename(work_dir)
    training.resumes(work_dir)


def test_training_whose_disk_vanishes(training, tmp_path, disturb, mountable):  # noqa: F811
    store, folder = tmp_path / "store", tmp_path / "disk"
    store.mkdir()
    folder.mkdir()
    with contextlib.ExitStack() as mounted:
        mounted.enter_context(disks.bound(store, folder))
        disturb(mounted.close)
        status, err = training.in_process(folder / "run")
    assert not list(folder.iterdir())
    training.ends_in_one_line(store / "run", status, err, str(folder / "run"), "is gone")
    training.resumes(store / "run")


@pytest.mark.parametrize("which", ["one", "all"])
def test_training_whose_workers_are_killed(training, tmp_path, disturb, which):
    def kill():
        for worker in multiprocessing.active_children()[: 1 if which == "one" else None]:
            worker.kill()
            worker.join()

    disturb(kill)
    status, err = training.in_process(tmp_path / "run", num_workers=2)
    training.ends_in_one_line(tmp_path / "run", status, err, "worker", "num_workers")
    training.resumes(tmp_path / "run")


def alone(training, work_dir, name, limit, *command, num_workers=0):
    """Trains in a process of its own, with a limit of the system; gives exit status and standard error.

    Args:
        name: of the limit, such as ``FSIZE``.
        command: what starts the process, if not Python itself.
    """
    arguments = [LIMITED, name, limit, training.task.tool, *training.arguments(work_dir, num_workers=num_workers)]
    process = start(arguments, command=command)
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_training_with_a_limit_on_file_sizes(training, share, tmp_path):
    largest = max(path.stat().st_size for path in training.undisturbed.rglob("*"))
    status, err = alone(training, tmp_path / "run", "FSIZE", int(share * largest))
    training.ends_in_one_line(tmp_path / "run", status, err, str(tmp_path / "run"), "ulimit -f")
    training.resumes(tmp_path / "run")


def test_training_with_little_shared_memory(training, tmp_path, mountable):  # noqa: F811
    mount = 'mount -t tmpfs -o size=16k tmpfs /dev/shm && exec "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount]  # for this process alone
    status, err = alone(training, tmp_path / "run", "none", 0, *command, num_workers=2)
    training.ends_in_one_line(tmp_path / "run", status, err, "/dev/shm", "--shm-size")
    training.resumes(tmp_path / "run")


@pytest.mark.parametrize("limit", [1, 7])
def test_training_with_a_limit_on_processes(training, limit):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("the limit counts what else the user runs: as root, `setpriv` gives a user with no other process")
    # That user may not look into pytest's folders.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # to read what root may
        command = ["env", f"HOME={name}", "setpriv", "--reuid=42424", "--clear-groups", *rights]
        work_dir = Path(name) / "run"
        status, err = alone(training, work_dir, "NPROC", limit, *command, num_workers=2)
        training.ends_in_one_line(work_dir, status, err, "ulimit -u")
        training.resumes(work_dir)
