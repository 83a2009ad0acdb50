"""The sources and the cleaned files of ``tresnet check``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tresnet_downstream.data_check.check import DataReport
from tresnet_downstream.data_check.config_sources import source_of_file, sources_of_config
from tresnet_downstream.data_check.fixing import cleaned_paths, require_new, write_cleaned
from tresnet_downstream.data_check.listing import Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config


def sources_asked_for(
    config: str | Path | None,
    options: Sequence[str] = (),
    annotations: str | None = None,
    images: str | None = None,
    task: str | None = None,
    outside_paths: bool = False,
) -> list[Source]:
    """The splits of a config, or a file of annotations with a folder of images.

    Raises:
        UserError: neither or both are named, or the config cannot be used.
    """
    if config is not None:
        if annotations is not None or images is not None or task is not None or outside_paths:
            raise UserError(
                "a config names its files and task itself; leave out `annotations`, `images`, `task` and "
                "`outside_paths`, which is a key of the config"
            )
        return sources_of_config(load_config(config, options))
    if annotations is None or images is None:
        raise UserError("nothing to check: give a config, or both `annotations` and `images`")
    return [source_of_file(annotations, images, task, outside_paths)]


def require_cleanable(sources: Sequence[Source]) -> None:
    """Checks that cleaned files can be written, before anything is read.

    Raises:
        UserError: a source is neither a COCO file nor a table.
    """
    for source in sources:
        if not source.can_be_cleaned:
            raise UserError(f"{source.annotation_file}: only COCO files and tables can be cleaned")


def clean(report: DataReport, out: str, overwrite: bool, is_folder: bool) -> Iterator[str]:
    """Writes cleaned annotation files, and yields lines with the numbers of removed entries.

    Args:
        report: result of the check.
        out: file or folder to write.
        overwrite: whether files may be overwritten.
        is_folder: whether ``out`` is a folder with a file for each split.

    Raises:
        UserError: as :func:`write_cleaned`.
    """
    paths = cleaned_paths(report.listings, out) if is_folder else [(report.listings[0], Path(out))]
    require_new([path for _, path in paths], overwrite)
    for listing, path in paths:
        counts = write_cleaned(listing, path, overwrite)
        changes = ", ".join(f"{kind} {count:,}" for kind, count in counts.items()) or "nothing"
        yield f"wrote {path}; removed or clipped: {changes}"
