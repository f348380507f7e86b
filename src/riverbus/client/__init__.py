"""The Python client: `connect()` over sockets, `embedded()` in process; asyncio, one interface.

bus.py is what a program holds; commander.py retries commands, subscription.py resumes; connection.py is one RESP3
connection, dialer.py and embedded.py the two ways to get one. Import from `riverbus` itself.
"""
