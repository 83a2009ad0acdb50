"""One-line messages for failures of the system, such as a full disk: what happened, and what to do."""

import errno
import logging
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tresnet_downstream.errors import UserError, is_out_of_memory

_NO_MEMORY = (
    "the batch does not fit in memory: give a smaller `batch_size` or image_size; in training, "
    "model.backbone.with_cp=True halves the memory of an image, and accumulation=K makes one step of K batches"
)
_WORKERS = "give fewer `num_workers`"
_OPEN_FILES = f"the limit on open files is reached: raise it (ulimit -n 65536), or {_WORKERS}"
_PROCESSES = f"the limit on processes is reached: raise it (ulimit -u), or {_WORKERS}"
_PROCESS_LOST = (
    "another process of this training ended or does not respond, so this one cannot continue; look for its error "
    "message or, if it has none, check whether the system killed it for lack of memory"
)
# Messages by error number.
_SYSTEM_ERRORS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota of this user is used up",
    errno.EFBIG: "the file is larger than the limit on file sizes; raise it (ulimit -f unlimited)",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports a failure",
    errno.ESTALE: "the network file system has lost the file",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: "the whole system has too many open files: close other programs",
    errno.EAGAIN: _PROCESSES,
    errno.ENOMEM: f"the system has no memory left for another process: {_WORKERS}, or close other programs",
}
# Those of them that only writing can cause.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_SHARED_MEMORY = (
    f"a data loader worker has no shared memory left (/dev/shm): enlarge it (docker run --shm-size=8g), or {_WORKERS} "
    "or a smaller `batch_size`"
)
# Texts in the RuntimeErrors of libraries, which have no error number. The first text that occurs in the chain of errors
# decides.
_SIGNS = (
    (
        (
            "killed by signal: Bus error",
            "unable to allocate shared memory",
            "unable to resize file",
            "unable to write to file </torch",
        ),
        _SHARED_MEMORY,
    ),
    (("Too many open files", "received 0 items of ancdata"), _OPEN_FILES),
    (("can't start new thread", "Resource temporarily unavailable"), _PROCESSES),
    (
        ("is killed by signal", "exited unexpectedly"),
        "a data loader worker was ended from outside, probably by the system for lack of memory: "
        f"{_WORKERS} or a smaller `batch_size`",
    ),
    (
        (
            "Connection closed by peer",
            "Connection reset by peer",
            "Broken pipe",
            "Timed out waiting",
            "NCCL error",
            "NCCL communicator was aborted",
            "Connection was likely closed",
        ),
        _PROCESS_LOST,
    ),
)
# Libraries that write files in C++ or Rust only report that writing failed.
_WRITE_FAILED = (
    *("PytorchStreamWriter failed", "unexpected pos", "file write failed", "Parent directory"),  # torch
    "iostream error",  # OpenVINO
    "I/O error",  # safetensors
    "requested and",  # numpy: 5000 requested and 3968 written
)


class NotWrittenError(UserError, OSError):
    """A file could not be written: the disk is full, a limit is reached, or its folder is gone."""


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def explanation(error: BaseException) -> str | None:
    """The message for a failure of the system; None for other errors.

    Args:
        error: the exception; the errors that caused it are checked too.
    """
    chain = list(chain_of(error))
    # It names the file; errors that it caused may not.
    if not_written := next((link for link in chain if isinstance(link, NotWrittenError)), None):
        return str(not_written)
    for link in chain:
        if _is_of_shared_memory(link):
            return _SHARED_MEMORY
        if isinstance(link, OSError) and (reason := _reason(link)):
            return f"{link.filename}: {reason}" if isinstance(link.filename, str) else reason
    messages = [str(link) for link in chain if isinstance(link, RuntimeError | ValueError | OSError)]
    for signs, text in _SIGNS:
        if any(sign in message for sign in signs for message in messages):
            return text
    return None


def message_of(error: BaseException) -> str | None:
    """The one-line message for a user's mistake, a failure of the system or a lack of memory; None for other errors."""
    if any(isinstance(link, KeyboardInterrupt) for link in chain_of(error)):
        return None
    text = str(error) if isinstance(error, UserError) else explanation(error)
    if text is None and is_out_of_memory(error):
        text = _NO_MEMORY
    return None if text is None else " ".join(text.split())


def silence_failing_logs() -> None:
    """Suppresses the tracebacks that logging and log writers' threads print for each line if the disk is full.

    The next checkpoint ends the training with one line.
    """
    logging.raiseExceptions = False
    threading.excepthook = _end_of_thread


def _end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or explanation(arguments.exc_value) is None:
        threading.__excepthook__(arguments)


@contextmanager
def names_folder(folder: str | Path) -> Iterator[None]:
    """A context that adds the folder's name to errors of a full disk that name no file.

    Log writers raise such errors, because writing to an open file does not report its name.

    Raises:
        NotWrittenError: instead of such an error.
    """
    try:
        yield
    except Exception as error:
        chain = list(chain_of(error))
        if not any(isinstance(link, NotWrittenError) for link in chain):
            for link in chain:
                if not isinstance(link, OSError) or link.errno not in _OF_WRITING or isinstance(link.filename, str):
                    continue
                if _is_of_shared_memory(link):
                    continue
                reason = _reason(OSError(link.errno, "", str(Path(folder) / "log")))
                raise NotWrittenError(f"{folder}: a file in it cannot be written: {reason}") from error
        raise


def _is_of_shared_memory(error: BaseException) -> bool:
    """Whether multiprocessing had no shared memory for a lock or a buffer; such errors name no file."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or isinstance(error.filename, str):
        return False
    modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    return not modules.isdisjoint(("multiprocessing.synchronize", "multiprocessing.heap"))


def release(error: BaseException) -> None:
    """Frees the objects in the frames of an error without output.

    A torch data loader that failed to start, for lack of memory, processes or open files, prints errors when freed.
    """
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        for link in list(chain_of(error)):
            traceback.clear_frames(link.__traceback__)
    finally:
        sys.unraisablehook = before


def _reason(error: OSError) -> str | None:
    name = error.filename
    if error.errno == errno.ENOENT and isinstance(name, str) and not Path(name).absolute().parent.exists():
        return f"the folder {Path(name).absolute().parent} is gone"
    text = _SYSTEM_ERRORS.get(error.errno or 0)
    if text is None:
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += _free_space(Path(name) if isinstance(name, str) else None) + "; make room there"
    return text


def why_not_written(error: BaseException, path: Path) -> str | None:
    """The reason why a file could not be written, if the system caused it; None for other errors.

    Args:
        error: the exception of the writer.
        path: the file, which may exist partially.
    """
    for link in chain_of(error):
        if isinstance(link, OSError) and (link.errno in _SYSTEM_ERRORS or not path.parent.exists()):
            return _reason(OSError(link.errno, "", str(path)))
        if isinstance(link, OSError) and link.errno in (errno.EACCES, errno.EPERM):
            return "this user has no permission to write it, or its folder"
    if any(sign in str(link) for link in chain_of(error) for sign in _WRITE_FAILED):
        return _reason(_tried(path))
    return None


def _tried(path: Path) -> OSError:
    """The system's error after a library only reported that writing failed; found by writing a little more."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as error:
        return OSError(error.errno, "", str(path))
    return OSError(errno.ENOSPC, "", str(path))  # space was freed in the meantime


def _free_space(path: Path | None) -> str:
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), None) if path else None
    if folder is None:
        return ""
    usage = shutil.disk_usage(folder)
    return f" of {folder} ({usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB are free)"
