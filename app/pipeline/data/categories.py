"""Label index <-> COCO category id: 0 is the background, classes are 1..K, original ids come back on export."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CategoryMap:
    """``ids[i]`` and ``names[i]`` belong to label i + 1. Raises ValueError on duplicate ids or unequal lengths."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"ids and names must have one length; got {len(self.ids)} and {len(self.names)}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"category ids must be distinct; got {self.ids}")

    @classmethod
    def from_coco(cls, categories: Sequence[dict]) -> "CategoryMap":
        """From the ``categories`` list of a COCO file, in its order."""
        return cls(tuple(int(item["id"]) for item in categories), tuple(str(item["name"]) for item in categories))

    def __len__(self) -> int:
        return len(self.ids)

    def label_of(self, category_id: int) -> int:
        """Label 1..K of a COCO category id; raises KeyError."""
        try:
            return self.ids.index(category_id) + 1
        except ValueError:
            raise KeyError(f"no category with id {category_id} (known: {self.ids})") from None

    def id_of(self, label: int) -> int:
        """COCO category id of a label 1..K; raises KeyError."""
        if not 1 <= label <= len(self.ids):
            raise KeyError(f"labels are 1..{len(self.ids)}, got {label}")
        return self.ids[label - 1]

    def name_of(self, label: int) -> str:
        """Name of a label 1..K; raises KeyError."""
        self.id_of(label)
        return self.names[label - 1]
