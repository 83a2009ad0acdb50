"""Notices to the user during a run."""

import logging

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger

from tresnet_downstream.wording import worded


def tell(text: str) -> None:
    """Prints one line and writes it to the log file of the run; a line that the log prints is not printed twice."""
    if not is_main_process():
        return
    text = worded(text)
    # Without a run, MMEngine would create its own logger, which writes to standard error in another format.
    handlers = MMLogger.get_current_instance().handlers if MMLogger._instance_dict else []
    if any(isinstance(handler, logging.FileHandler) for handler in handlers):
        MMLogger.get_current_instance().info(text)
        if any(type(handler) is logging.StreamHandler and handler.level <= logging.INFO for handler in handlers):
            return
    print(text, flush=True)  # flushed, because torchrun may end this process at any time
