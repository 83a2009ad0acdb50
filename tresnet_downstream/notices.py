"""What a user should know of a run that goes on."""

import logging

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger

from tresnet_downstream.wording import worded


def tell(text: str) -> None:
    """Prints one line, or logs it where a run's log reaches the terminal; the log file has it too."""
    if not is_main_process():
        return
    text = worded(text)
    # Without a run, MMEngine would make a logger of its own, in another form and for standard error.
    handlers = MMLogger.get_current_instance().handlers if MMLogger._instance_dict else []
    if any(isinstance(handler, logging.FileHandler) for handler in handlers):
        MMLogger.get_current_instance().info(text)
        if any(type(handler) is logging.StreamHandler and handler.level <= logging.INFO for handler in handlers):
            return
    print(text, flush=True)  # also where another process ends and torchrun ends this one
