"""What happens to rows, with no weights and no language model."""
