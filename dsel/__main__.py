"""python -m dsel: the same as `dsel`."""

from dsel.cli import main

if __name__ == "__main__":
    main()
