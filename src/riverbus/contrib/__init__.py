"""Plugs for other people's frameworks: Django Channels, broadcaster, python-socketio, pytest.

Each module needs its framework (`pip install 'riverbus[channels]'` and so on), imports the client only, and is imported
by nothing of ours. See docs/plugs.md.
"""
