"""One module per command: it reads options, calls the library and shows the result. No mathematics."""
