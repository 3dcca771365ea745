"""How it runs: the only floor that knows time, place and failure."""
