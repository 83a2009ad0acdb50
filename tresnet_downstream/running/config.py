"""Reading and saving of config files.

References are resolved after the options are merged, so ``--cfg-options image_size=224`` changes every value that
refers to it. See :mod:`options` and :mod:`references`.
"""

import contextlib
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.running.options import with_options
from tresnet_downstream.running.references import resolved, with_references

# The second package is built from the folder mmcv_ext of the sources.
DETECTION_SET_UP = (
    "pip install 'tresnet-downstream[detection]' mmcv-on-torchvision, or '.[detection]' ./mmcv_ext in a clone"
)
SET_BY_TRAINING = ("work_dir", "launcher", "model_wrapper_cfg", "overwrite", "resume")


def read_config_file(path: str | Path) -> Config:
    """Reads a config file without resolving its references.

    Raises:
        UserError: if the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such config file")
    # `custom_imports` finds the user's own files beside the config or in the current folder.
    for folder in (str(Path(path).resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        return Config.fromfile(str(path))
    except Exception as error:
        if "mmdet is not installed" in str(error):  # MMEngine's message for _base_ = 'mmdet::...'
            raise UserError(f"{path}: is a detector's config, which needs MMDetection; {DETECTION_SET_UP}") from error
        # A config is Python code, so any exception may come from a mistake in the file.
        raise UserError(f"{path}: cannot be read as a config: {' '.join(str(error).split())}") from error


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Reads a config file, merges ``key=value`` options into it, and resolves its references.

    Args:
        path: a Python config of MMEngine.
        options: such as ``data_root=/data/coco`` or ``model.backbone.with_cp=True``. A key must be in the
            config, or be an argument of the component that it is set on.

    Raises:
        UserError: if the file is missing or cannot be read, if an option's key is unknown, or if a reference
            names an undefined key or refers to itself.
    """
    return with_options(read_config_file(path), options)


def save_config(config: Config, path: Path) -> None:
    """Writes a config that :func:`load_config` reads; with its references if it did not change after resolving them."""
    written = copy.deepcopy(config)
    if written.get("resume"):
        written.update(resume=False, load_from=None)
    if written.get("overwrite"):
        written.overwrite = False
    if (referring := with_references(config)) is not None:
        with contextlib.suppress(UserError):
            before, now = (_settled(c._cfg_dict.to_dict()) for c in (resolved(referring), config))
            if before == now:
                written = referring
    text = written.pretty_text
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _settled(config: dict[str, object]) -> dict[str, object]:
    """A config without the values that a training sets itself."""
    stable = {key: value for key, value in config.items() if key not in SET_BY_TRAINING}
    if isinstance(model := stable.get("model"), dict):
        model.pop("classes", None)
        if isinstance(backbone := model.get("backbone"), dict):
            backbone.pop("init_cfg", None)
    return stable
