"""Where tasks run: one method, map."""
