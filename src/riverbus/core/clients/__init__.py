"""What a node does for its connected clients: sessions, the order of commands, each command, delivery."""
