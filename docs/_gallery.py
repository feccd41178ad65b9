"""The order of the gallery: first steps, maps, clusters, classes, representations, then parts of one's own."""

_ORDER = """quickstart digits_map fashion trust new_rows global_structure partly_labelled parameters_of_maps
    uneven_clusters choosing_k class_discovery debiased_clusters parameters_of_clusters label_smoothing supcon simclr
    two_modalities word_vectors grid_over_table own_distribution training_loop""".split()


class Order:
    """A key for the files of a folder of examples; those that are not named come last."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        stem = name.removeprefix("plot_").removesuffix(".py")
        return (_ORDER.index(stem) if stem in _ORDER else len(_ORDER)), name
