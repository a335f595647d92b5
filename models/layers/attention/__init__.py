"""How much an event matters to a candidate, and positions from the recent end."""
