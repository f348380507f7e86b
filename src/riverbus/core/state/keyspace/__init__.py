"""Keys: streams in full, consumer groups, strings, expiry: replicated state. `execute.py` is the way in."""
