"""FILES to a data set: which files, which arrays and ids, joined and streamed."""
