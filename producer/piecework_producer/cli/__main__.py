"""`python -m piecework_producer.cli`."""

from piecework_producer.cli import main

main()
