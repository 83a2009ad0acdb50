"""The toolkit's own sections: each file computes one topic, shows it and gives its numbers."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
