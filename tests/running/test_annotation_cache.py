from running.small_data import train

from tresnet_downstream.classification import annotation_cache


def test_runs_share_a_cache_beside_their_folders(data, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_cache, "MIN_BYTES", 0)
    read = []
    parse = annotation_cache.read_annotations
    monkeypatch.setattr(
        annotation_cache, "read_annotations", lambda file, *rest: read.append(file) or parse(file, *rest)
    )
    train(data, tmp_path / "first", max_epochs=1)
    train(data, tmp_path / "second", max_epochs=1)
    assert [file.rpartition("/")[2] for file in read] == ["train.json", "val.json"]
    assert len(list((tmp_path / ".cache").iterdir())) == 2
