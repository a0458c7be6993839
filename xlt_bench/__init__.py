"""xlt-bench: how far does a fine-tuned skill carry over to other languages?"""

from importlib.metadata import version

__version__ = version("xlt-bench")
