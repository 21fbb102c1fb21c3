"""Fails with a message of several lines."""

import sys

sys.stderr.write("first line\nno such operator\n")
sys.exit(3)
