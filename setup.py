"""Package metadata; `pip install -e .` installs the package `mdg`, `requirements.txt` pins the tested set."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "mdg/__init__.py").read_text(encoding="utf-8")).group(1)

setup(
    name="mdg",
    version=VERSION,
    description="Modality Divergence-aware Dynamic Gating for RGB-Thermal semantic segmentation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mdg", "mdg.*"]),
    package_data={"": ["*.html"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11,<2.16",
        "torchvision>=0.26,<0.31",
        "mmengine>=0.10.5",
        "numpy>=1.26,<3",
        "opencv-python>=4.10",
        "tensorboard>=2.17",
        "pydantic>=2.10,<3",
        "PyYAML>=6.0",
        "rich>=13.7",
        "jinja2>=3.1",
        "filelock>=3.13",
        "pillow>=10",
        "matplotlib>=3.8",
        "numba>=0.61",
        "safetensors>=0.4.3",
        "timm>=1.0.20",
    ],
    entry_points={
        "console_scripts": [
            "mdg-train = mdg.commands.train:main",
            "mdg-val = mdg.commands.val:main",
            "mdg-infer = mdg.commands.infer:main",
            "mdg-check-data = mdg.commands.check_data:main",
            "mdg-explain = mdg.commands.explain:main",
            "mdg-doctor = mdg.commands.doctor:main",
            "mdg-compare = mdg.commands.compare:main",
            "mdg-benchmark = mdg.commands.benchmark:main",
            "mdg-prepare = mdg.commands.prepare:main",
            "mdg-study = mdg.commands.study:main",
            "mdg-export = mdg.commands.export_network:main",
            "mdg-export-weights = mdg.commands.export_weights:main",
            "mdg-fetch = mdg.commands.fetch_weights:main",
            "mdg-report = mdg.commands.report:main",
            "mdg-robustness = mdg.commands.robustness:main",
            "mdg-calibrate = mdg.commands.calibrate:main",
            "mdg-register = mdg.commands.register:main",
            "mdg-demo-web = mdg.commands.demo_web:main",
        ],
    },
    extras_require={
        # Source packages that need the installed torch at build time: pip install --no-build-isolation "mdg[natten]"
        "natten": ["natten==0.21.7"],
        "mamba": ["mamba-ssm>=2.3"],
        # Temperatures inside radiometric JPEGs of FLIR cameras
        "thermal": ["flyr>=5.1,<6"],
        # Where the curves of a run go besides its own files: log.trackers
        "wandb": ["wandb>=0.19"],
        "mlflow": ["mlflow-skinny>=2.20"],
        # Networks for other runtimes: tools/export.py
        "export": ["onnx>=1.19", "onnxscript>=0.5.3", "onnxruntime>=1.20"],
        "openvino": ["openvino>=2025.3"],
        # The page of tools/demo_web.py, and what its tests steer a browser with
        "web": ["gradio>=6,<7"],
        "browser": ["playwright>=1.49"],
        # make docs
        "docs": ["mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pytest-cov>=5",
            "mypy>=1.13",
            "types-PyYAML",
            "ruff>=0.8",
            "scikit-learn>=1.5",
            "timm>=1.0.20",
            "jsonschema>=4.21",
            "hypothesis>=6.100",
        ],
    },
)
