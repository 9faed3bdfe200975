"""The wheel has the library in it: it is of one platform, and of every Python 3."""

import os

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class Wheel(bdist_wheel):
    """Of this platform, although nothing is compiled here."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# `cargo xtask wheel` says which version the library beside the package has.
setup(version=os.environ.get("TIDINGS_VERSION", "0.0.0"), cmdclass={"bdist_wheel": Wheel})
