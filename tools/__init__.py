"""What the repository does to itself: lock its dependencies, check its own rules."""
