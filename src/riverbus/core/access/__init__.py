"""Who may do what: users, their rules, and the checks of commands, keys and channels."""
