"""Ends well and writes no file."""
