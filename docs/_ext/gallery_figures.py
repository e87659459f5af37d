"""The gallery keeps every figure that a block of an example has made, without pyplot."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


class FigureScraper:
    """Save the figures that appear among the names of an example, once each."""

    def __init__(self):
        self.seen = {}

    def __call__(self, block, block_vars, gallery_conf):
        source, saved = block_vars["src_file"], []
        known = self.seen.setdefault(source, [])
        for value in list(block_vars["example_globals"].values()):
            if isinstance(value, Figure) and not any(value is other for other in known):
                known.append(value)
                path = next(block_vars["image_path_iterator"])
                value.savefig(path, dpi=110)
                saved.append(path)
        return figure_rst(saved, gallery_conf["src_dir"])
