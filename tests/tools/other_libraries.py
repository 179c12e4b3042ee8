"""Stand-ins for data sets of other libraries, with the methods that the real ones have."""


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Columns:
    """A `datasets.Dataset`: features by column, rows as dicts."""

    def __init__(self, features, rows):
        self.features, self.rows = features, rows

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


class Pairs:
    """A data set of torchvision's."""

    def __init__(self, images, targets, classes=None):
        self.pairs = list(zip(images, targets, strict=True))
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]
