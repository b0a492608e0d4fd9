"""Where images come from and in what order."""

from .decode import BadImage
from .opening import open_one, open_pair, open_source, split_source
from .source import Source, align_labels

__all__ = ["BadImage", "Source", "align_labels", "open_one", "open_pair", "open_source", "split_source"]
