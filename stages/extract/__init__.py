"""From raw HTML to main text."""
