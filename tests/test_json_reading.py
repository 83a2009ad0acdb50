import gzip
import json

import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import unpack_gzip
from tresnet_downstream.json_reading import parse_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 2000 + "]" * 2000, "TRESNET_MAX_JSON_DEPTH"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "TRESNET_MAX_JSON_DEPTH"),
        ("[" + "9" * 5000 + "]", "5000 digits, above the limit of 100"),
        ("[" + "9" * 4000 + "]", "TRESNET_MAX_NUMBER_DIGITS"),
        (r'["\ud800"]', "unpaired surrogate"),
        ("[1,", "malformed JSON"),
        (b"[\xff]", "malformed JSON"),
    ],
)
def test_json_beyond_the_limits_is_refused_by_name(text, words):
    with pytest.raises(UserError, match=rf"a\.json: .*{words}"):
        parse_json(text, "a.json")


def test_brackets_quotes_and_characters_within_strings_are_no_depth():
    content = {"[" * 300: ['\\"' * 9, "{" * 200, "\n", "\U0001f600"], "b": [[1, -2.5e300]] * 300}
    assert parse_json(json.dumps(content), "a.json") == content
    assert parse_json(json.dumps(content, ensure_ascii=False).encode(), "a.json") == content


def test_length_of_json_is_limited(monkeypatch):
    monkeypatch.setenv("TRESNET_MAX_JSON_BYTES", "5")
    assert parse_json("[1,2]", "a.json") == [1, 2]
    with pytest.raises(UserError, match="TRESNET_MAX_JSON_BYTES"):
        parse_json("[1, 2]", "a.json")


def test_a_gzip_bomb_is_refused_while_it_is_unpacked(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(UserError, match=r"a\.gz: unpacks to over [\d,]+ bytes.*TRESNET_MAX_EXPANSION"):
        unpack_gzip(tmp_path / "a.gz")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"text"))
    assert unpack_gzip(tmp_path / "b.gz") == b"text"
