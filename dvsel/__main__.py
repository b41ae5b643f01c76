"""`python -m dvsel`."""

from dvsel.cli import main

if __name__ == "__main__":
    main()
