"""One thread: these trainings are small, and different numbers of threads change the last bit of results."""

import pytest
import torch
from running.small_data import make_small_data


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """A folder of small pictures with labels, which no test changes."""
    return make_small_data(tmp_path_factory.mktemp("shapes") / "data")
