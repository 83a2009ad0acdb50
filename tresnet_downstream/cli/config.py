"""Lists the packaged configs, prints a config with the meanings of its keys, or copies one."""

import pprint
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.cli.config_names import config_path, packaged_folder, packaged_names
from tresnet_downstream.cli.options import add_cfg_options
from tresnet_downstream.command_line import Parser
from tresnet_downstream.errors import UserError

_WIDTH = 100


def parser() -> Parser:
    """The parser of ``tresnet config``."""
    parser = Parser(
        description="Lists the packaged configs or, with a name, prints that config: all keys, including inherited "
        "ones, with resolved references and the meaning of each key.",
        examples=("digits_tresnet --cfg-options image_size=64", "coco_tresnet_l_448 --out my_configs"),
        note="In your own config, _base_ = ['coco_tresnet_l_448.py'] inherits all keys of that file in the same "
        "folder.",
    )
    parser.add_argument("config", nargs="?", help="the name of a packaged config, or a config file")
    add_cfg_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder to copy the config to, including the files that it inherits from"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and lists, prints or copies configs.

    Raises:
        UserError: if there is no such config, it cannot be read, or a copy would overwrite another file.
    """
    options = parser().parse_args(arguments)
    if options.config is None:
        if options.out or options.cfg_options:
            raise UserError("`out` and `cfg_options` need a config; name one")
        print(_listed())
        return
    path = config_path(options.config)
    if options.out is None:
        print(_printed(path, options.cfg_options))
    elif options.cfg_options:
        raise UserError("`cfg_options` cannot be used with `out`: files are copied unchanged; edit the copy instead")
    else:
        for copy in copy_config(path, options.out):
            print(f"wrote {copy}")


def _listed() -> str:
    """A line for each packaged config."""
    from tresnet_downstream.running.config_keys import summary_of

    names = packaged_names()
    width = max(map(len, names))
    rest = " " * (width + 2)
    return "\n".join(
        textwrap.fill(
            summary_of(packaged_folder() / f"{name}.py").partition(". ")[0].rstrip("."),
            width=_WIDTH + 20,
            initial_indent=f"{name:{width}}  ",
            subsequent_indent=rest,
        )
        for name in names
    )


def _printed(path: Path, changes: Sequence[str]) -> str:
    """A config as the text of a valid config: short values first, each key with its meaning."""
    from tresnet_downstream.running.config import load_config
    from tresnet_downstream.running.config_keys import meanings_of, summary_of

    meanings = meanings_of(path)
    values: dict[str, object] = load_config(path, changes)._cfg_dict.to_dict()
    blocks = [f"# {path.stem}: {line}" for line in [summary_of(path)] if line]
    short, long = [], []
    for key, value in sorted(values.items()):
        text = pprint.pformat(value, width=_WIDTH, sort_dicts=False)
        comment = f"# {meanings[key]}" if key in meanings else ""
        if "\n" in text or len(text) > _WIDTH // 2:
            long.append(f"\n{comment}\n{key} = {text}".replace("\n\n", "\n"))
        else:
            short.append((f"{key} = {text}", comment))
    width = max((len(text) for text, _ in short), default=0)
    blocks += [f"{text:{width}}  {comment}".rstrip() for text, comment in short]
    return "\n".join([*blocks, *long])


def copy_config(path: Path, out: str | Path) -> list[Path]:
    """Copies a config and the files that it inherits from into a folder, with the same relative paths.

    Args:
        path: path of the config.
        out: the folder; it is created if it does not exist.

    Returns:
        the files that were written, without those that existed with the same content.

    Raises:
        UserError: if a file of the same name has another content, or the folder cannot be written to.
    """
    from tresnet_downstream.files import whole_file
    from tresnet_downstream.running.config_keys import with_bases

    files = list(dict.fromkeys(with_bases(path)))
    texts = {Path(out, file.relative_to(path.parent)): file.read_text(encoding="utf-8") for file in files}
    for copy, text in texts.items():
        if copy.exists() and copy.read_text(encoding="utf-8") != text:
            raise UserError(f"{copy}: exists with another content; name another folder as `out`, or move the file")
    written = [copy for copy in texts if not copy.exists()]
    for copy in written:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(copy) as partial:
            partial.write_text(texts[copy], encoding="utf-8")
    return written
