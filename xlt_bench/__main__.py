"""`python -m xlt_bench`: the command line."""

from xlt_bench.cli.main import main

main()
