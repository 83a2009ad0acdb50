"""The scope of this package's components, for a config's ``default_scope``.

It is not in :mod:`.registry`, because that imports MMEngine.
"""

# MMEngine imports `{scope}.registry` for the scope of a config, so the scope must be the package's name.
SCOPE = "tresnet_downstream"
