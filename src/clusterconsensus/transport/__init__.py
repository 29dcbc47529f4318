"""How messages travel between members."""
