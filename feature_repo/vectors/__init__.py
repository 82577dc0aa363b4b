"""Item vectors: one collection per space in Milvus, and an in-process copy for the serving path.

| file | holds |
|---|---|
| `index.py` | the port: `VectorIndex`, `Filter`, `Hits`, `Fetched`, and the errors |
| `rows.py` | `PinRows`: what one collection holds, checked, as parallel arrays |
| `exact.py` | brute force: the oracle, and the answer wherever an index falls short |
| `milvus.py` | one Milvus by URI: collections created, listed, opened, dropped |
| `collection.py` | one Milvus collection as a `VectorIndex`, and its writes |
| `replica.py` | a collection copied into this process (faiss), as a `VectorIndex` |
| `server.py` | the embedded Milvus Lite server process |
"""
