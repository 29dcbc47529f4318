"""The commands: the demonstration, and the look into a directory."""
