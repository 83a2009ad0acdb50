"""What a user should know of a run that goes on."""

import logging

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger

from tresnet_downstream.wording import worded


def tell(text: str) -> None:
    """Logs one line, and prints it where the log does not reach the terminal."""
    if not is_main_process():
        return
    text = worded(text)
    logger = MMLogger.get_current_instance()
    logger.info(text)
    if not any(type(handler) is logging.StreamHandler and handler.level <= logging.INFO for handler in logger.handlers):
        print(text)
