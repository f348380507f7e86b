"""The command line: `riverbus COMMAND`, one file a command; main.py joins them, output.py says how they speak."""
