"""Writes the table of all config keys with their defaults and meanings: python docs/make_config_keys.py."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.config_keys import MEANINGS, meanings_of

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "config_keys.md"
START = """# Config keys

The keys at the top level of a config, with their defaults and meanings. A key is set in a config file, or on the command
line by `--cfg-options KEY=VALUE`. Keys within parts of the config have dotted names: `model.head.num_classes=20`. A key that
no code reads is an error that names the nearest keys.

`$name` in a value is the value of the key `name`, also if `name` is set on the command line. `tresnet config CONFIG` prints
all keys of a config with their values and meanings. `docs/make_config_keys.py` writes this page from the files of `configs/`.
"""  # noqa: E501 - the width of a page's lines
# The heading of each table, a sentence on it, and the config whose keys it lists.
TABLES = (
    (
        "Classifiers with several labels per image",
        "The keys of `custom_tresnet_m_448.py`. The configs of MS-COCO, PASCAL VOC and the digits have the same keys.",
        "configs/custom_tresnet_m_448.py",
    ),
    (
        "Classifiers with one label per image",
        "The keys of `folders_tresnet_m_224.py` that the table above does not have, or that have another default.",
        "configs/folders_tresnet_m_224.py",
    ),
    (
        "Data sets of torchvision",
        "The further keys of `cifar10_tresnet_xl_224.py`, or other defaults than those of `folders_tresnet_m_224.py`.",
        "configs/cifar10_tresnet_xl_224.py",
    ),
    (
        "The recipe of ResNet-RS",
        "The further keys of `imagenet_resnetrs50_160.py`, or other defaults than those of `folders_tresnet_m_224.py`.",
        "configs/imagenet_resnetrs50_160.py",
    ),
    (
        "Detectors",
        "The keys of `configs/_base_/tresnet_detection.py`, which every detector inherits. All other keys of a\n"
        "detector's config are MMDetection's.",
        "configs/_base_/tresnet_detection.py",
    ),
    (
        "Labels and boxes in one pass",
        "The keys of `configs/_base_/labels_and_boxes.py`, which a joint model inherits beside its detector's config.",
        "configs/_base_/labels_and_boxes.py",
    ),
)
# Keys that the code reads and no config of this package sets; those of MMDetection's configs may.
OF_THE_RUNNER = {
    **{key: MEANINGS[key] for key in ("auto_scale_lr", "log_processor", "test_cfg", "tta_model")},
    "activation_checkpointing": "MMEngine's: modules whose activations are recomputed in the backward pass",
    "cfg": "set by MMEngine's runner",
    "compile": "MMEngine's: True or the options of torch.compile",
    "custom_imports": "modules that are imported before the config is used: dict(imports=['own_head'])",
    "data_preprocessor": "MMEngine's: normalisation and padding of a detector's batches, if model has none",
    "efficient_conv_bn_eval": "MMEngine's: modules whose batch norm in evaluation mode is folded while training",
    "experiment_name": "MMEngine's name of the run in its logs",
    "find_unused_parameters": "of torch's DistributedDataParallel",
    "launcher": "set by the option --launcher",
    "model_wrapper_cfg": "MMEngine's wrapper of the model under several processes",
    "overwrite": "set by the option --overwrite",
    "resume": "set by the option --resume",
    "sync_bn": "MMEngine's: 'torch' replaces batch norms by SyncBatchNorm; of TResNet use model.backbone.norm=sync",
    "test_evaluator": "scores of the test images of a detector",
    "work_dir": "folder of the run; set by the options --work-dir and --out",
}
# Values that are longer are parts of a config, whose keys have pages of their own.
LONGEST = 60


def rows(path: str, known: dict[str, Any]) -> Iterator[str]:
    """A row for each key of a config that differs from ``known``, which gets the new values."""
    content = Config.fromfile(str(ROOT / path)) if "/_base_/" in path else load_config(ROOT / path)
    meanings = meanings_of(ROOT / path)
    for key in sorted(content):
        value = content[key]
        text = repr(value.to_dict() if hasattr(value, "to_dict") else value)
        if key in known and (known[key] == value or len(text) > LONGEST):
            continue
        known[key] = value
        default = f"`{text}`" if len(text) <= LONGEST else "[a part of the config](#parts-of-a-config)"
        meaning = (meanings.get(key) or MEANINGS[key]).replace("|", "\\|")
        yield f"| `{key}` | {default} | {meaning} |"


PARTS = """
## Parts of a config

Parts of a config are dictionaries. `tresnet config CONFIG` prints them in full.

| key | what it holds | page |
|---|---|---|
| `model` | type, backbone, head, loss | [Head](extending/head.md), [Loss](extending/loss.md), [Backbone](extending/backbone.md) |
| `train_pipeline`, `val_pipeline` | transforms of single images | [Augmentation](augmentation.md) |
| `train_dataloader`, `val_dataloader`, `test_dataloader` | data set, sampler, batches | [Data set](extending/data_set.md) |
| `val_evaluator`, `test_evaluator` | metrics | [Metric](extending/metric.md) |
| `optim_wrapper`, `param_scheduler` | optimiser and schedule | [Optimiser and schedule](extending/optimiser.md) |
| `default_hooks`, `custom_hooks` | MMEngine's hooks, and those of this package | [Running](api/running.md) |
| `visualizer`, `tracker` | logs | [Trackers](trackers.md) |
| `labels` | head and loss of the labels of a joint model | [Labels and boxes](joint.md#the-config) |
"""  # noqa: E501 - rows of a table


def of_single_configs(known: set[str]) -> Iterator[str]:
    """A row for each key that a config sets at its top level and no table has."""
    for path in sorted((ROOT / "configs").rglob("*.py")):
        meanings = meanings_of(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
            if name and name != "_base_" and name not in known:
                known.add(name)
                value = ast.unparse(node.value)
                default = f"`{value}`" if len(value) <= LONGEST else "[a part of the config](#parts-of-a-config)"
                yield f"| `{name}` | `{path.name}` | {default} | {meanings[name]} |"


def page() -> str:
    """The page, from the configs."""
    text, known, single, all_keys = START, {}, {}, set()
    for title, sentence, path in TABLES:
        if "folders" in path:
            known = single = known.copy()
        elif "configs/_base_" in path:
            known = {}
        elif single:
            known = single.copy()
        table = "\n".join(rows(path, known))
        all_keys |= set(known)
        text += f"\n## {title}\n\n{sentence}\n\n| key | default | meaning |\n|---|---|---|\n{table}\n"
    single_rows = "\n".join(of_single_configs(all_keys))
    text += f"\n## Keys of single configs\n\n| key | config | default | meaning |\n|---|---|---|---|\n{single_rows}\n"
    runner = "\n".join(
        f"| `{key}` | {meaning} |" for key, meaning in sorted(OF_THE_RUNNER.items()) if key not in all_keys
    )
    text += f"\n## Keys that no packaged config sets\n\n| key | meaning |\n|---|---|\n{runner}\n"
    return text + PARTS


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
