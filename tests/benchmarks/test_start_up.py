import start_up

from tresnet_downstream.classification.annotations import read_annotations


def test_made_file_has_the_numbers_that_it_is_made_for(tmp_path, monkeypatch):
    monkeypatch.setattr(start_up, "IMAGES", 30)
    monkeypatch.setattr(start_up, "BOXES", 200)
    result = start_up.start_up(tmp_path, repeats=2)
    assert len(result.later) == 2
    assert min(result.first, result.without_cache, *result.later) > 0
    annotations = read_annotations(tmp_path / "instances.json")
    assert (len(annotations), len(annotations.classes)) == (30, 80)
    assert len(list((tmp_path / "images").iterdir())) == 30
