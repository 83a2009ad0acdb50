"""Lists, shows, converts, downloads, mirrors, shares and verifies weight files."""

import argparse
from collections.abc import Sequence

from tresnet_downstream.cli.options import (
    add_device_option,
    add_import_option,
    add_model_options,
    best_device,
    model_options,
)
from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and calls the command."""
    options = parser().parse_args(arguments)
    options.command(options)


def parser() -> Parser:
    """The parser of ``tresnet weights``."""
    parser = Parser(
        description="Lists, shows, converts, downloads, mirrors, shares and verifies weight files.",
        examples=("show m_in1k", "convert work_dirs/digits_tresnet/best.pth digits.safetensors --to timm"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="lists the public files: name, data, classes, size, published score")
    command.set_defaults(command=_list)

    command = commands.add_parser("show", help="describes a weight file in ten lines")
    command.add_argument("file", help="a path, URL, or name from the list")
    add_model_options(command)
    command.set_defaults(command=_show)

    command = commands.add_parser("convert", help="writes a file in another project's format")
    command.add_argument("file", help="a path, URL, or name from the list")
    command.add_argument("out", help="file to write: .pth, or .safetensors for timm")
    command.add_argument(
        "--to", required=True, choices=["timm", "release", "tresnet"], help="format of the file to write"
    )
    add_model_options(command)
    command.set_defaults(command=_convert)

    command = commands.add_parser("fetch", help="downloads a public file into the cache and prints its path")
    command.add_argument("name", help="a name from the list, or a URL")
    command.set_defaults(command=_fetch)

    command = commands.add_parser(
        "mirror", help="copies the public files of this machine into a folder for TRESNET_MIRROR"
    )
    command.add_argument("folder", metavar="DIR", help="folder of the mirror")
    command.add_argument(
        "files", nargs="*", metavar="FILE", help="files that were downloaded otherwise, with their original names"
    )
    command.set_defaults(command=_mirror)

    command = commands.add_parser("share", help="writes a folder for the Hugging Face hub: weights and a model card")
    command.add_argument("checkpoint", help="a path, URL, or name from the list, of a classifier or detector")
    command.add_argument("out", metavar="DIR", help="folder to write")
    command.add_argument(
        "--licence", required=True, metavar="NAME", help="the hub's name of the weights' licence, such as apache-2.0"
    )
    command.add_argument(
        "--weights",
        choices=["raw", "averaged"],
        help="weights of a checkpoint to share (default: the weights with the better validation score)",
    )
    command.add_argument(
        "--scored", metavar="DIR", help="folder with the checkpoint's scores (default: the checkpoint's folder)"
    )
    command.add_argument("--thresholds", metavar="FILE", help="file of thresholds to include")
    command.add_argument("--exported", metavar="FILE", help="the model's .onnx file to include")
    command.add_argument("--name", help="name of the model (default: the name of the repository or folder)")
    command.add_argument("--push-to", metavar="OWNER/NAME", help="repository of the hub to upload the folder to")
    command.add_argument("--private", action="store_true", help="create the repository as a private one")
    add_import_option(command)
    command.set_defaults(command=_share)

    command = commands.add_parser("verify", help="scores weights and compares the result with the published score")
    command.add_argument("file", metavar="NAME", help="a name from the list, or a path")
    command.add_argument("--data", required=True, metavar="DIR", help="folder of MS-COCO, PASCAL VOC or ImageNet")
    command.add_argument(
        "--labels",
        metavar="FILE",
        help="ground truth of ImageNet's validation images in a flat folder; docs/weights.md lists the formats",
    )
    command.add_argument("--year", type=int, default=2014, choices=[2014, 2017], metavar="YEAR", help="year of MS-COCO")
    command.add_argument("--batch-size", type=int, metavar="N", default=16, help="images per batch")
    add_device_option(command)
    add_model_options(command)
    command.set_defaults(command=_verify)
    return parser


def _list(options: argparse.Namespace) -> None:
    from tresnet_downstream.weights.catalogue import catalogue_table

    print(catalogue_table())


def _show(options: argparse.Namespace) -> None:
    from tresnet_downstream.classification.weight_file import describe
    from tresnet_downstream.classification.weight_file_reading import read_weight_file
    from tresnet_downstream.wording import worded

    print(worded(describe(read_weight_file(options.file, **model_options(options)))))


def _convert(options: argparse.Namespace) -> None:
    from tresnet_downstream.classification.convert import convert
    from tresnet_downstream.classification.weight_file_reading import read_weight_file
    from tresnet_downstream.wording import first_of

    file = read_weight_file(options.file, **model_options(options))
    print(f"wrote {convert(file, options.out, options.to)}")
    if file.unused:
        print(f"not converted, because they belong neither to the backbone nor to the head: {first_of(file.unused)}")
    if file.inexact:
        print(f"{file.inexact} norm weights below 1e-5 cannot be converted exactly and were set to 1e-5")


def _fetch(options: argparse.Namespace) -> None:
    from tresnet_downstream.weights.public_files import locate

    print(locate(options.name))


def _mirror(options: argparse.Namespace) -> None:
    from tresnet_downstream.weights.mirror import fill_mirror

    for name, done in fill_mirror(options.folder, options.files):
        print(f"{name:34} {done}")


def _share(options: argparse.Namespace) -> None:
    from tresnet_downstream.deployment.sharing import share

    if options.private and options.push_to is None:
        raise UserError("`private` needs a repository; name one with `push_to`")
    shared = share(
        options.checkpoint,
        options.out,
        options.licence,
        weights=options.weights,
        scored=options.scored,
        thresholds=options.thresholds,
        exported=options.exported,
        name=options.name,
        push_to=options.push_to,
        private=options.private,
    )
    print(f"wrote {shared.folder}: {', '.join(shared.files)}")
    if shared.not_in_timm:
        print(f"timm cannot load it: {shared.not_in_timm}; use {shared.loader}")
    print(f"uploaded to {shared.url}" if shared.url else f"complete the author's part of {shared.folder}/README.md")


def _verify(options: argparse.Namespace) -> None:
    from tresnet_downstream.classification.model_loading import load_model
    from tresnet_downstream.classification.verify import count_images, published_score, verify

    published = published_score(options.file)
    model = load_model(options.file, **model_options(options)).to(best_device(options.device))
    steps = verify(model, options.data, options.year, options.batch_size, options.labels)
    *_, result = progress(steps, count_images(model, options.data, options.year, options.labels), "verify")
    assert result is not None
    print(f"measured   {result.metric} {result.percent:.2f} on {result.num_images:,} images")
    if published is not None:
        print(f"published  {result.metric} {published:.2f}")
        print(f"difference {result.percent - published:+.2f}")
