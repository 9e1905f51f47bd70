"""One file for each command, or for each family of commands."""
