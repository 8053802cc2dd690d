"""What the commands do: one file per command, next to what they share."""
