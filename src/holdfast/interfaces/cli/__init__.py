"""The command line: it parses, calls the application's verbs, and shows what comes back; it decides nothing."""
