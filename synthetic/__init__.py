"""Everything that speaks to a language model."""
