"""How a member remembers: durable files in one directory."""
