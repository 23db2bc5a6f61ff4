"""The command line in this process."""

import sys

import pytest

from sobofem.coupling.cli import main


@pytest.fixture
def here(monkeypatch, capsys):
    """`sobofem` in this process: exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sobofem", *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("SOBOFEM_DEBUG", raising=False)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run
