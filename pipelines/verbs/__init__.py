"""The verbs of the `gristmill` command, by what they are about; everything heavy is imported by the verb that needs it."""
