"""Reads a CSV file of ``path,label;label`` and collects all faults. The strict reader stops at the first fault."""

import csv
import io
from collections.abc import Hashable

from tresnet_downstream.data_check.listing import ListedImage, Listing, Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.text_files import read_text, same_file_name


def list_table(source: Source) -> Listing:
    """Lists the images of a CSV file; its faults become findings.

    ``content`` of the result has all rows that could be parsed, the header included; positions count these.
    """
    listing = Listing(source)
    try:
        text = read_text(source.annotation_file)
    except UserError as error:
        listing.report_unreadable(error)
        return listing
    listing.content = []
    widths: tuple[int, ...] = (2, 3)
    lines: dict[str, int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            listing.report("malformed-entry", "error", f"line {reader.line_num}", str(error))
            continue
        if cells is None:
            break
        if not cells:
            continue
        place = f"line {reader.line_num}"
        listing.content.append(cells)
        position = len(listing.content) - 1
        if position == 0 and cells[0].strip() == "path":
            widths = _widths_by_header(listing, cells)
        elif len(cells) not in widths:
            expected = " or ".join(map(str, widths))
            listing.report("malformed-entry", "error", place, f"has {len(cells)} columns, not {expected}")
        elif not cells[0]:
            listing.report("malformed-entry", "error", place, "has no path")
        else:
            image = _image(listing, position, place, cells)
            spelling = same_file_name(image.name)
            if spelling in lines:
                text = f"{image.name!r} is listed in line {lines[spelling]} already"
                listing.report("repeated-name", "error", place, text, image=position)
            lines.setdefault(spelling, reader.line_num)
            listing.images.append(image)
    listing.classes = tuple(sorted({label for image in listing.images for label in image.shown | image.unverified}))
    return listing


def _widths_by_header(listing: Listing, cells: list[str]) -> tuple[int, ...]:
    """The allowed numbers of columns."""
    if len(cells) in (2, 3) and [cell.strip() for cell in cells[2:]] in ([], ["unknown"]):
        return (len(cells),)
    text = f"the header is `{','.join(cells)[:60]}`, not path,label[,unknown]"
    listing.report("malformed-entry", "error", "line 1", text)
    return (2, 3)


def _image(listing: Listing, position: int, place: str, cells: list[str]) -> ListedImage:
    shown, unverified = ({label.strip() for label in cell.split(";")} - {""} for cell in (*cells[1:], "")[:2])
    for label in sorted(shown & unverified):
        text = f"has the label {label!r} both as present and as unknown"
        listing.report("malformed-entry", "error", place, text, image=position)
    labels: set[Hashable] = {*shown, *(("unknown", label) for label in unverified)}
    return ListedImage(position, cells[0], cells[0], None, shown, unverified - shown, labels)
