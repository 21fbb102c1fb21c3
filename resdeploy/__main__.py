"""`python -m resdeploy` is the program `resdeploy`."""

from resdeploy.cli.app import main

if __name__ == "__main__":
    main()
