"""What the package exports, and what importing it costs."""

import inspect
import subprocess
import sys

from softfeed import softops


def test_all_is_the_public_names():
    public = [name for name, value in vars(softops).items() if name[0] != "_" and not inspect.ismodule(value)]
    assert sorted(softops.__all__) == sorted(public)
    assert len(set(softops.__all__)) == len(softops.__all__)


def test_all_has_every_public_function_of_the_modules():
    modules = [value for name, value in vars(softops).items() if name[0] != "_" and inspect.ismodule(value)]
    assert {module.__name__.rpartition(".")[2] for module in modules} >= {"certainty", "targets", "windows"}
    defined = {
        name
        for module in modules
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    }
    assert defined <= set(softops.__all__)


def test_import_loads_no_array_library():
    code = "import sys, softfeed.softops; print(*({'torch', 'nvidia.dali', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
