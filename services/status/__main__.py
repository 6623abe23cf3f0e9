"""`python -m hone.services.status`: what `hone status` does, where there is no command line."""

from .command import main

main()
