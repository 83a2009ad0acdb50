"""Reads image files in worker processes, and checks whether they can be used."""

import hashlib
import multiprocessing
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from tresnet_downstream.data_check.names import impossible_name, way_out
from tresnet_downstream.data_check.near import perceptual_hash
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import read_image

# Number of files per task. It is small because the task of a killed worker is repeated file by file.
_FILES_PER_TASK = 8
# A folder with resolved symbolic links, and a name relative to it.
File: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Look:
    """The result of reading an image file.

    Attributes:
        problem: kind of finding if the file cannot be used, otherwise None.
        text: description of the fault.
        outside: how its name leads out of the folder; None if it does not.
        size: width and height in pixels, upright.
        content: SHA-256 of the file.
        pixels: SHA-256 of size and decoded pixels.
        hash: 64 bits that are alike for images that look alike; None if it was not asked for, or if the image is
            too flat to be told from others by it.
    """

    problem: str | None = None
    text: str = ""
    outside: str | None = None
    size: tuple[int, int] | None = None
    content: bytes = b""
    pixels: bytes = b""
    hash: int | None = None


def look_at(file: File, with_hash: bool = False) -> Look:
    """Decodes a file completely. Faults are returned, not raised.

    Args:
        file: a folder with resolved symbolic links, and a name relative to it.
        with_hash: whether to compute the perceptual hash.
    """
    folder, name = file
    path, outside = os.path.join(folder, name), None
    try:
        if text := impossible_name(name, folder):
            return Look("impossible-name", text)
        outside = way_out(name, folder)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return Look("missing-image", "there is no such file", outside)
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe or a device might never end.
            return Look("broken-image", "is a folder, pipe or device, not a file", outside)
        if not status.st_size:
            return Look("broken-image", "the file is empty", outside)
        image = read_image(path)
        height, width = image.shape[:2]
        return Look(
            outside=outside,
            size=(width, height),
            content=_digest(path),
            pixels=hashlib.sha256(np.array(image.shape).tobytes() + image.tobytes()).digest(),
            hash=perceptual_hash(image) if with_hash else None,
        )
    except UserError as error:
        return Look("broken-image", str(error).removeprefix(f"{path}: "), outside)
    except Exception as error:
        # A decoder may raise any exception for a damaged file, which must not end the check.
        return Look("broken-image", f"{type(error).__name__}: {error}", outside)


def look_at_all(
    files: Sequence[File], workers: int, with_hash: bool = False, look: Callable[[File], Look] | None = None
) -> Iterator[tuple[File, Look]]:
    """Reads files, and yields each file with its result, in any order.

    Args:
        files: folders and names.
        workers: number of processes that read; 0 reads in this process, which a file may then crash.
        with_hash: whether to compute perceptual hashes.
        look: function that reads a file, instead of :func:`look_at`; it must be picklable.
    """
    look = look or partial(look_at, with_hash=with_hash)
    if not workers:
        yield from ((file, look(file)) for file in files)
        return
    tasks = deque(tuple(files[start : start + _FILES_PER_TASK]) for start in range(0, len(files), _FILES_PER_TASK))
    while tasks:
        unfinished: list[File] = []
        yield from _until_killed(tasks, workers, 2 * workers, look, unfinished)
        # With a single file per task, the file that kills its worker is known.
        singles: deque[tuple[File, ...]] = deque((file,) for file in unfinished)
        while singles:
            killed_files: list[File] = []
            yield from _until_killed(singles, 1, 1, look, killed_files)
            text = "the process that read it was killed, usually for lack of memory"
            yield from ((file, Look("killed-worker", text)) for file in killed_files)


def _until_killed(
    tasks: deque[tuple[File, ...]],
    workers: int,
    ahead: int,
    look: Callable[[File], Look],
    unfinished: list[File],
) -> Iterator[tuple[File, Look]]:
    """Runs tasks and yields their results; if a worker is killed, the files of the running tasks are listed."""
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        # Forking a process with threads, such as that of the progress bar, may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_parent,
    )
    waiting: deque[tuple[tuple[File, ...], Future[list[Look]]]] = deque()
    try:
        while tasks or waiting:
            while tasks and len(waiting) < ahead:
                task = tasks.popleft()
                try:
                    waiting.append((task, pool.submit(_look_at_each, task, look)))
                except BrokenProcessPool:
                    tasks.appendleft(task)  # for the next pool
                    break
            if not waiting:
                return
            task, future = waiting.popleft()
            try:
                yield from zip(task, future.result(), strict=True)
            except BrokenProcessPool:
                unfinished += [file for task, _ in [(task, future), *waiting] for file in task]
                return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _look_at_each(task: Iterable[File], look: Callable[[File], Look]) -> list[Look]:
    return [look(file) for file in task]


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.digest()


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
