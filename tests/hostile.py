"""Seeded damage to files of JSON: random nodes replaced, keys dropped, lists cut, then bytes flipped."""

import copy
import gzip
import json
import math
import os
import random
import subprocess
import sys
import time

from tresnet_downstream.errors import LONGEST_MESSAGE, UserError

LONGEST_SECONDS, MEMORY = 20, 2**31


def flipped(content, draw):
    """Bytes with a few of them changed, removed or doubled, and sometimes cut off."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 20))):
        place = draw.randrange(len(damaged)) if draw.random() < 0.6 else draw.randrange(min(200, len(damaged)))
        change = draw.randrange(4)
        if change == 0:
            damaged[place] ^= 1 << draw.randrange(8)
        elif change == 1:
            damaged[place] = draw.choice((0, 255, draw.randrange(256)))
        elif change == 2:
            del damaged[place : place + draw.randrange(1, 9)]
        else:
            damaged[place:place] = damaged[place : place + draw.randrange(1, 9)]
        if not damaged:
            break
    return bytes(damaged[: draw.randrange(len(damaged) + 1)] if draw.random() < 0.15 else damaged)


def odd_value(draw):
    """A value that no reader expects; a function, since the deep ones may not be shared."""
    deep = []
    for _ in range(draw.choice((3, 200))):
        deep = [deep]
    return draw.choice(
        (
            *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**80, 0.5, -0.0, 1e308, 1e-320),
            *(math.nan, math.inf, -math.inf, "", "a", "\udcff", "a\0b", "a\nb", "x" * 5000, "../../a", "/etc/passwd"),
            *("9" * 40, "nan", [], {}, [1], [1, 2, 3], [0.0] * 4, [math.nan] * 4, [1e308] * 4, ["a"] * 4, [None] * 4),
            *({"a": 1}, {"type": "list"}, {"id": 1}, [[1, 2, 3, 4, 5, 6]], [[math.inf] * 6], deep),
            {"size": [4, 4], "counts": draw.choice(("0", "a" * 30, [99], [-5, 21], [1e300], None, [0, 2**40]))},
        )
    )


def _places(node):
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def changed(tree, draw):
    """A copy of a JSON tree with one to three nodes replaced, removed or taken from elsewhere in it."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return odd_value(draw)
        parent, key = draw.choice(places)
        change = draw.random()
        if change < 0.15:
            del parent[key]
        elif change < 0.3:
            other, from_key = draw.choice(places)
            parent[key] = copy.deepcopy(other[from_key])
        else:
            parent[key] = odd_value(draw)
    return tree


def damaged_json(tree, draw):
    """The bytes of a damaged JSON file; a few are damaged below the level of JSON."""
    content = json.dumps(changed(tree, draw)).encode()
    return flipped(content, draw) if draw.random() < 0.1 else content


def damaged_gzip(tree, draw):
    """The same, packed; a few are damaged after packing."""
    content = gzip.compress(damaged_json(tree, draw), 1)
    return flipped(content, draw) if draw.random() < 0.1 else content


def try_all(read, attempts):
    """Reads each; gives how many were refused. Anything but a short UserError within some seconds is a failure."""
    messages = []
    for number in range(attempts):
        start = time.monotonic()
        try:
            read(number)
        except UserError as error:
            messages.append(str(error))
        assert time.monotonic() - start < LONGEST_SECONDS
    assert all(len(message) <= LONGEST_MESSAGE for message in messages)
    assert not [message for message in messages if "\n" in message]
    return len(messages)


def in_little_memory(module, call, folder, seconds):
    """Runs a call of a test module in a process of its own that may take 2 GiB more; gives what it returns."""
    code = (
        f"import sys, resource, {module}\n"
        f"{module}.prepare()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {MEMORY},) * 2)\n"
        f"print({module}.{call})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1]), done.stderr


def seeded(kind):
    return random.Random(kind)
