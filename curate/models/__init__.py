"""Models on this machine: where they are, what tells them from others, how they are loaded, what is refused."""
