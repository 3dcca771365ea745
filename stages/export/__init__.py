"""Files for somebody else's reader."""
