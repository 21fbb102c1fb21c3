"""Words typed in a shell in, calls of the library and an exit code out.

One module per command; `app` owns parsing, output streams and every exit code.
"""
