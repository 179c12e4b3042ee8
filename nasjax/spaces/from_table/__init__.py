"""Space `from_table`: the architectures of a file of results. Files: space, file."""
