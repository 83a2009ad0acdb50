"""The name under which MMEngine finds this package's components: a config's ``default_scope``.

It stands apart from :mod:`.registry`, which imports MMEngine.
"""

# MMEngine imports `{scope}.registry` for a scope that it meets in a config, so it is the package's name.
SCOPE = "tresnet_downstream"
