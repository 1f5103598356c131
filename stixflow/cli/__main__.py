import sys

from stixflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
