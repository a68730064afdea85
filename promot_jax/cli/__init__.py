"""The command line: the only Python of this project that imports gin or prints."""
