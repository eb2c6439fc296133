"""Commands of the command line that have no other home: add_arguments(parser), run(arguments)."""
