"""A deterministic simulator: whole clusters on virtual time, with every fault at one's command."""
