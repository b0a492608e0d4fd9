"""``python -m sslctl`` is ``sslctl``."""

from .cli.main import main

main()
