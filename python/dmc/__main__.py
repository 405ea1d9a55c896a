"""The program dmc itself, as a console script and as `python -m dmc`."""

import os
import pathlib
import sys


def main() -> None:
    program = pathlib.Path(__file__).parent / "bin" / "dmc"
    os.execv(program, ["dmc", *sys.argv[1:]])


if __name__ == "__main__":
    main()
