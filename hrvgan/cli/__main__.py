"""`python -m hrvgan.cli`."""

from hrvgan.cli import main

main()
