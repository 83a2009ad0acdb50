"""The message of a user's error is one line of text that a terminal shows as it is."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tresnet_downstream.errors import LONGEST_MESSAGE, UserError
from tresnet_downstream.images import BadImageError, read_image


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", " \n  \n "])
def test_line_breaks_of_a_name_become_spaces(line_break):
    assert str(UserError(f"a{line_break}b.csv: is empty")) == "a b.csv: is empty"


def test_control_characters_are_escaped():
    error = UserError("the class '\x1b[2J\x07\x9b\tcat' is not there")
    assert str(error) == r"the class '\x1b[2J\x07\x9b\tcat' is not there"
    assert str(UserError("Größe  2: 猫")) == "Größe  2: 猫"


def test_a_message_of_control_characters_is_cut_after_they_are_escaped():
    assert len(str(UserError("\x1b" * 3 * LONGEST_MESSAGE))) <= LONGEST_MESSAGE


class Unreadable(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        read_image("folder/a: b\nc.jpg")
        return torch.zeros(1)


def test_an_error_of_a_worker_has_the_message_of_the_main_process():
    with pytest.raises(BadImageError) as alone:
        Unreadable()[0]
    with pytest.raises(BadImageError) as of_worker:
        next(iter(DataLoader(Unreadable(), num_workers=1)))
    assert str(of_worker.value) == str(alone.value)
    assert str(alone.value).startswith("folder/a: b c.jpg: unreadable image: ")
