"""`python -m deblur_export` is `deblur-export`."""

from deblur_export.cli import main

main()
