"""Where chunks lie: index segments, a cache that is rebuilt from packs (docs/format.md, section 10)."""
