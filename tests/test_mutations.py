"""Seeded damage to bytes: mutated files are read, or refused by one short UserError.

TRESNET_MUTATIONS sets how many of each kind are tried.
"""

import io
import json
import os
import socketserver
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hostile import in_little_memory, number_of_inputs, try_flipped
from PIL import Image
from test_jpeg import photograph

from tresnet_downstream.images import read_image
from tresnet_downstream.weights.reading import read_checkpoint

COUNT = number_of_inputs(150)
pytestmark = pytest.mark.faults
# Format of Pillow, mode, options of saving.
PICTURES = {
    "png": ("PNG", "RGB", {}),
    "palette.png": ("PNG", "P", {"transparency": 3}),
    "16-bit.png": ("PNG", "I;16", {}),
    "jpg": ("JPEG", "RGB", {}),
    "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
    "cmyk.jpg": ("JPEG", "CMYK", {}),
    "webp": ("WEBP", "RGB", {}),
    "lossless.webp": ("WEBP", "RGBA", {"lossless": True}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "tiff": ("TIFF", "RGB", {}),
    "packed.tiff": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
}
# The others that Pillow writes and reads, tried in turn; some releases of Pillow lack some.
OTHERS = {name: (name, "RGB", {}) for name in ("AVIF", "DDS", "DIB", "ICO", "IM", "JPEG2000", "MPO", "PCX")}
OTHERS |= {name: (name, "RGB", {}) for name in ("PPM", "QOI", "SGI", "TGA")}
OTHERS |= {"BLP": ("BLP", "P", {}), "MSP": ("MSP", "1", {}), "XBM": ("XBM", "1", {})}


def picture(form, mode, options):
    """The bytes of a picture file."""
    stream, image = io.BytesIO(), photograph(96, 64)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    image.convert(mode).save(stream, form, **options)
    return stream.getvalue()


def other_pictures():
    Image.init()
    return [picture(*OTHERS[name]) for name in OTHERS if name in Image.SAVE]


def read_picture(path):
    from tresnet_downstream.images import read_image

    read_image(path)
    read_image(path, at_least=(16, 24))


def saved(content, **options):
    import torch

    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def small_weights():
    import torch

    return {"state_dict": {"w": torch.arange(300.0)}, "meta": {"classes": ["a", "b"]}}


def safetensors_file():
    import torch
    from safetensors.torch import save

    return save({"w": torch.arange(300.0)})


def read_weights(path):
    from tresnet_downstream.weights.reading import is_detector, read_checkpoint, unwrap

    unwrap(read_checkpoint(path), path=path)
    is_detector(path)


def classifier_file():
    from test_hostile_files import small_classifier

    return saved(small_classifier()[0], _use_new_zipfile_serialization=False)


def load_classifier(path):
    from tresnet_downstream import load_model
    from tresnet_downstream.classification.weight_file import describe
    from tresnet_downstream.classification.weight_file_reading import read_weight_file

    describe(read_weight_file(path))
    load_model(path)


def files(name, contents, read):
    """A kind whose files are read each on its own."""

    def call(folder):
        def write_and_read(damaged):
            (folder / name).write_bytes(damaged)
            read(folder / name)

        return try_flipped(contents(), write_and_read, name, COUNT)

    return call


def training_folder(folder):
    """Three small checkpoints of a training, the second of which is pointed to."""
    import torch

    from tresnet_downstream.running import folders

    for epoch in (1, 2, 3):
        content = {"meta": {"epoch": epoch}, "state_dict": {"w": torch.ones(3)}, "optimizer": {}}
        torch.save({**content, "param_schedulers": []}, folder / f"epoch_{epoch}.pth")
    folders.point_to(folder, "epoch_2.pth")
    return folder / folders.LAST_CHECKPOINT


def pointers(folder):
    from tresnet_downstream.running.resume_point import newest_whole_checkpoint

    pointer = training_folder(folder)

    def write_and_read(damaged):
        pointer.write_bytes(damaged)
        assert newest_whole_checkpoint(folder).is_file()

    return try_flipped([pointer.read_bytes()], write_and_read, "pointer", COUNT)


def left_out_files(folder):
    from tresnet_downstream.running.left_out import read_left_out, write_left_out

    write_left_out(folder, "left_out_train.csv", {"a.jpg": "has no labels", 'b,"c.jpg': "unreadable image: x"})

    def write_and_read(damaged):
        (folder / "left_out_train.csv").write_bytes(damaged)
        reasons = read_left_out(folder, "left_out_train.csv")
        assert all(isinstance(text, str) for item in reasons.items() for text in item)
        write_left_out(folder, "again.csv", reasons)
        assert read_left_out(folder, "again.csv") == reasons

    return try_flipped([(folder / "left_out_train.csv").read_bytes()], write_and_read, "left out", COUNT)


def annotation_caches(folder):
    """A damaged cache is as if it were not there."""
    from tresnet_downstream.classification import annotation_cache

    annotation_cache.MIN_BYTES = 0
    file = folder / "labels.csv"
    file.write_text("a/ä.jpg,cat;dog\nb.jpg,dog,cat\nc.jpg,\n", encoding="utf-8")
    whole = annotation_cache.cached_annotations(file, cache_dir=folder / "cache")
    (cache,) = (folder / "cache").iterdir()

    def write_and_read(damaged):
        cache.write_bytes(damaged)
        annotations = annotation_cache.cached_annotations(file, cache_dir=folder / "cache")
        for name in ("classes", *annotation_cache.ARRAYS):
            assert np.array_equal(getattr(annotations, name), getattr(whole, name))

    return try_flipped([cache.read_bytes()], write_and_read, "cache", COUNT)


class Answer(socketserver.StreamRequestHandler):
    """Answers every request with the bytes that the server was given."""

    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.answer)


def answer_of(content, status="200 OK", *more):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", 'ETag: "1"', *more, "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + content


def downloads(what):
    """Damage to one of the parts of a download; what is fetched is the file or refused."""

    def call(folder):
        from tresnet_downstream.cache_folder import cache_folder
        from tresnet_downstream.weights import fetch

        os.environ["TRESNET_CACHE"], os.environ["TRESNET_TIMEOUT"] = str(folder), "5"
        content = saved(small_weights())
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            server.answer = answer_of(content)
            url = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
            path = fetch(url)
            assert path.is_relative_to(cache_folder())
            parts = {name: path.with_name(f"net.pth{name}") for name in ("", ".sha256", ".partial", ".partial.version")}
            whole = {"": content, ".sha256": parts[".sha256"].read_bytes()}
            half = len(content) // 2
            begun = {
                ".partial": content[:half],
                ".partial.version": json.dumps({"mark": '"1"', "length": len(content)}).encode(),
            }
            rest = f"Content-Range: bytes {half}-{len(content) - 1}/{len(content)}"

            def write_and_read(damaged):
                for part in parts.values():
                    part.unlink(missing_ok=True)
                there = {} if what == "answer" else begun if what in begun else whole
                for name, written in there.items():
                    parts[name].write_bytes(damaged if name == what else written)
                server.answer = answer_of(content)
                if what == "answer":
                    server.answer = damaged
                elif what in begun:
                    server.answer = answer_of(content[half:], "206 Partial Content", rest)
                fetched = fetch(url)
                if what in (".partial", "answer"):
                    read_checkpoint(fetched)  # what no checksum of the file covers may be another
                else:
                    assert fetched.read_bytes() == content

            damaged = answer_of(content) if what == "answer" else {**whole, **begun}[what]
            try:
                return try_flipped([damaged], write_and_read, f"download {what}", COUNT)
            finally:
                server.shutdown()

    return call


def exported(suffix):
    """A file of an exported model, with the others beside it as they were written."""

    def call(folder):
        from tresnet_downstream import predict
        from tresnet_downstream.exported import ExportedClassifier

        files = {path.suffix: path for path in (folder.parent / "made").glob("m.*")}
        for path in files.values():
            (folder / path.name).write_bytes(path.read_bytes())

        def write_and_read(damaged):
            (folder / f"m{suffix}").write_bytes(damaged)
            model = ExportedClassifier(folder / ("m.onnx" if suffix == ".onnx" else "m.xml"))
            predict(model, photograph(96, 64))

        return try_flipped([files[suffix].read_bytes()], write_and_read, f"exported {suffix}", COUNT)

    return call


KINDS = {
    "pictures": {
        **{
            kind: files(kind, lambda saving=saving: [picture(*saving)], read_picture)
            for kind, saving in PICTURES.items()
        },
        "other pictures": files("a.picture", other_pictures, read_picture),
    },
    "weights": {
        "pth": files("a.pth", lambda: [saved(small_weights())], read_weights),
        "older pth": files(
            "older.pth", lambda: [saved(small_weights(), _use_new_zipfile_serialization=False)], read_weights
        ),
        "safetensors": files("a.safetensors", lambda: [safetensors_file()], read_weights),
        "classifier": files("classifier.pth", lambda: [classifier_file()], load_classifier),
        "pointer": pointers,
        "left-out images": left_out_files,
        "annotation cache": annotation_caches,
        **{
            f"downloaded {title}": downloads(what)
            for title, what in (
                *(("file", ""), ("checksum", ".sha256"), ("part", ".partial"), ("version", ".partial.version")),
                ("answer", "answer"),
            )
        },
    },
    "exported": {"onnx": exported(".onnx"), "openvino": exported(".xml"), "openvino weights": exported(".bin")},
}
# A damaged one is done without.
READ_ANYWAY = ("pointer", "left-out images", "annotation cache")


def prepare(group):
    """Imports what is slow or large, and exports a network, before memory is limited."""
    if group == "pictures":
        import tresnet_downstream.images

        return
    import tresnet_downstream.classification

    if group == "weights":
        import tresnet_downstream.running.resume_point
        import tresnet_downstream.weights.download  # noqa: F401

        return
    from deployment.small_networks import classifier

    from tresnet_downstream import predict
    from tresnet_downstream.deployment.classifier import ExportableClassifier
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.exported import ExportedClassifier

    os.mkdir("made")
    for path in ("made/m.onnx", "made/m.xml"):
        export(ExportableClassifier(classifier(size=32)), Path(path), ())
        predict(ExportedClassifier(path), photograph(96, 64))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by resource.setrlimit")
@pytest.mark.parametrize("group", ["pictures", "weights", pytest.param("exported", marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused_in_2_gib(group, tmp_path):
    tallies = in_little_memory("test_mutations", group, tmp_path, 120 + len(KINDS[group]) * (5 + COUNT // 4))
    assert tallies.keys() == KINDS[group].keys()
    for kind, tally in tallies.items():
        assert 10 * tally["refused"] > tally["read"] or kind in READ_ANYWAY, kind


def test_the_originals_are_read(tmp_path):
    for kind, saving in PICTURES.items():
        (tmp_path / f"a.{kind}").write_bytes(picture(*saving))
        assert read_image(tmp_path / f"a.{kind}").shape == (64, 96, 3)
    for content in other_pictures():
        (tmp_path / "a.picture").write_bytes(content)
        assert read_image(tmp_path / "a.picture").shape in ((64, 96, 3), (43, 64, 3))  # of an icon
    with Image.open(tmp_path / "a.progressive.jpg") as image:
        assert image.info["progressive"]
    (tmp_path / "a.pth").write_bytes(saved(small_weights()))
    (tmp_path / "a.safetensors").write_bytes(safetensors_file())
    assert read_checkpoint(tmp_path / "a.pth")["meta"]["classes"] == ["a", "b"]
    assert len(read_checkpoint(tmp_path / "a.safetensors")["w"]) == 300
