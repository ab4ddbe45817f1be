"""Deprecated names of version 0.1: `Shelf` is now `featcache.store.base_store.BaseStore`.

Importing this module gives the module `featcache.store.base_store` itself, so that replacing one of its
functions through the old name has the same effect.
"""

import sys

from featcache.store import base_store

vars(base_store)["Shelf"] = base_store.BaseStore
sys.modules[__name__] = base_store
