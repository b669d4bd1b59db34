"""Makes the three packages installable: Beam workers and the container image install Graft through this file.

Everything else about the distribution is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["pipeline*", "components*", "trainer*"]),
    package_data={
        "trainer": ["bundled/*.h5"],
        "pipeline.serving": ["page.html"],
        "components.report.template": ["*.html", "*.css", "*.js"],
    },
)
