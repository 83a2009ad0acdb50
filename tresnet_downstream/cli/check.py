"""Checks annotations and images before a training."""

import os
from collections.abc import Sequence

from tresnet_downstream.cli.config_names import config_path
from tresnet_downstream.cli.options import add_cfg_options, add_import_option
from tresnet_downstream.command_line import Parser, progress

ERRORS_FOUND = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, checks the data and prints the findings; returns 1 if one is an error, otherwise 0."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.data_check import MAX_DISTANCE, check_data, table, write_json
    from tresnet_downstream.data_check.command import clean, require_cleanable, sources_asked_for

    sources = sources_asked_for(
        config_path(options.config) if options.config else None,
        options.cfg_options,
        options.annotations,
        options.images,
        options.task,
        options.outside_paths,
    )
    if options.fix:
        require_cleanable(sources)
    max_distance = MAX_DISTANCE if options.max_distance is None else options.max_distance
    report = check_data(sources, options.workers, max_distance, progress)
    print(table(report))
    if options.json:
        write_json(report, options.json)
        print(f"wrote {options.json}")
    if options.fix:
        for line in clean(report, options.fix, options.overwrite, is_folder=options.config is not None):
            print(line)
    return ERRORS_FOUND if report.has_errors else 0


def parser() -> Parser:
    """The parser of ``tresnet check``."""
    parser = Parser(
        description="Checks annotations and images before a training. Exit status: 0 without errors, 1 if a finding "
        "is an error, 2 if the command is wrong.",
        examples=("digits_tresnet", "--annotations labels.csv --images photos --fix cleaned.csv"),
    )
    parser.add_argument(
        "config",
        nargs="?",
        help="a config file, or the name of a packaged config; all of its splits are checked",
    )
    add_import_option(parser)
    add_cfg_options(parser)
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="annotation file to check instead of a config: COCO .json, .csv or VOC list .txt",
    )
    parser.add_argument("--images", metavar="DIR", help="folder that the names in FILE are relative to")
    parser.add_argument(
        "--task",
        choices=["classification", "detection"],
        help="task of FILE (default: detection for a .json file with boxes)",
    )
    parser.add_argument(
        "--outside-paths",
        action="store_true",
        help="allow names in FILE that lead out of DIR (with a config: its key outside_paths)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=os.cpu_count() or 1,
        help="processes that read images (default: one for each core)",
    )
    parser.add_argument(
        "--max-distance",
        type=int,
        metavar="BITS",
        help="largest number of differing bits, of 64, in the hashes of similar images (default: 6)",
    )
    parser.add_argument("--json", metavar="FILE", help="JSON file to write all findings to")
    parser.add_argument(
        "--fix",
        metavar="OUT",
        help="write cleaned annotations to the file OUT or, with a config, to a file for each split in the folder OUT",
    )
    parser.add_argument("--overwrite", action="store_true", help="allow --fix to overwrite files")
    return parser
