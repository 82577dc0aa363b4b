"""What is used of Feast to open a store, imported once.

Feast's import has deprecations shown that whoever runs us leaves out. The filters of warnings are put back
after it: in a module, which Python imports once, so that no later call changes them under another thread.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

__all__ = ["FeatureStore", "RepoConfig"]
