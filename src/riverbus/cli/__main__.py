"""`python -m riverbus.cli`: the command line by way of a given interpreter, as `dev` starts its nodes."""

from riverbus.cli.main import main

main()
