"""From the name of a config, as typed, to its file: packaged configs are named without a path."""

from difflib import get_close_matches
from pathlib import Path

from tresnet_downstream.errors import UserError

_SUFFIXES = (".py", ".json", ".yaml", ".yml")  # MMEngine's


def packaged_folder() -> Path:
    """The folder of the packaged configs; of a clone, that is ``configs/``.

    Raises:
        UserError: the installation holds none.
    """
    folder = Path(__file__).parents[1] / ".mim" / "configs"
    if not folder.is_dir():
        raise UserError(f"{folder}: the packaged configs are missing; install tresnet-downstream again")
    return folder


def packaged_names() -> list[str]:
    """The names of all packaged configs, sorted."""
    return sorted(path.stem for path in packaged_folder().glob("*.py"))


def config_path(name: str | Path) -> Path:
    """The file of a config.

    A name without a folder and without ``.py`` is that of a packaged config, and a line says so where a file of the
    current folder could be meant.

    Args:
        name: a path, or the name of a packaged config.

    Raises:
        UserError: there is neither; the message lists the nearest packaged names.
    """
    path = Path(name)
    if path.suffix in _SUFFIXES and path.is_file():
        return path
    by_name = path.suffix == "" and str(name) == path.name
    packaged = packaged_folder() / f"{name}.py"
    if by_name and packaged.is_file():
        from tresnet_downstream.notices import tell  # imports torch

        if path.with_suffix(".py").is_file():
            tell(f"{name} is the packaged config; for the file, write ./{name}.py")
        elif path.is_file():
            tell(f"{name} is the packaged config, and not the file of this name")
        return packaged.resolve()
    if path.is_file():
        raise UserError(f"{name}: is no config; the name of a config file ends in .py")
    nearest = get_close_matches(path.stem, packaged_names(), n=3, cutoff=0.5)
    hint = f"the nearest packaged configs are {', '.join(nearest)}" if nearest else "tresnet config lists packaged ones"
    raise UserError(f"{name}: no such config file; {hint}")
