"""A state that another has replaced is given back in bounded steps: all at once it would stop the loop.

Channels and their windows refer to each other, and nobody collects cycles (runtime/memory.py).
"""

from __future__ import annotations

from riverbus.core.state.store import Store

_PER_STEP = 2000  # channels: about a millisecond


def release_some(store: Store) -> bool:
    """Free a bounded part; False once nothing is left."""
    for window in (*store.windows, *store.retired):
        window.heap = []
    if store.aborted:
        if store.aborted[-1].discard_some():
            store.aborted.pop()
        return True
    keyspace = store.keyspace
    freed = 0
    while keyspace.flushed and freed < _PER_STEP:
        freed += 1 + len(keyspace.flushed.pop())
    if len(keyspace.garbage) > _PER_STEP:
        del keyspace.garbage[-_PER_STEP:]
        return True
    partitions, keys = store.partitions, keyspace.partitions
    if freed + len(partitions) + store.channels + keyspace.count <= _PER_STEP:
        partitions.clear()  # a small state: what the loop below would do in this one step
        keys.clear()
    while partitions and freed < _PER_STEP:
        freed += 1 + len(partitions.pop()) + len(keys.pop())
    if not partitions:
        keyspace.partitions.clear()
        del keyspace.store
    return bool(partitions)
