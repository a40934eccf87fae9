"""`python -m azml_dist.cli`."""

from azml_dist.cli import main

main()
