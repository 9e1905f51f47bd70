"""The bytes and the rules of the format, pure: nothing here reads, writes, waits or looks at a clock."""
