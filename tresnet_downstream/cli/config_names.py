"""Finds the file of a config by a path or by the name of a packaged config."""

from difflib import get_close_matches
from pathlib import Path

from tresnet_downstream.errors import UserError

_SUFFIXES = (".py", ".json", ".yaml", ".yml")  # MMEngine's


def packaged_folder() -> Path:
    """The folder of the packaged configs; in a clone, ``configs/``.

    Raises:
        UserError: if the installation does not contain it.
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

    A name without folder and suffix is the name of a packaged config. If the current folder has a file of that name, a
    line says that the packaged config is used.

    Args:
        name: a path, or the name of a packaged config.

    Raises:
        UserError: if there is neither; the message lists the nearest packaged names.

    Examples:
        >>> config_path("digits_tresnet").name
        'digits_tresnet.py'
    """
    path = Path(name)
    if path.suffix in _SUFFIXES and path.is_file():
        return path
    by_name = path.suffix == "" and str(name) == path.name
    packaged = packaged_folder() / f"{name}.py"
    if by_name and packaged.is_file():
        from tresnet_downstream.notices import tell  # imports torch

        if path.with_suffix(".py").is_file():
            tell(f"using the packaged config {name}; for the file, write ./{name}.py")
        elif path.is_file():
            tell(f"using the packaged config {name}, not the file of this name")
        return packaged.resolve()
    if path.is_file():
        raise UserError(f"{name}: is not a config; the name of a config file ends in .py")
    nearest = get_close_matches(path.stem, packaged_names(), n=3, cutoff=0.5)
    hint = f"the nearest packaged configs are {', '.join(nearest)}" if nearest else "tresnet config lists all packaged"
    raise UserError(f"{name}: no such config file; {hint}")
