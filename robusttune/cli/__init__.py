"""The command line: the commands, their options, which are read from the library's signatures, and its errors."""
