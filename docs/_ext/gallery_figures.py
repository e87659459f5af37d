"""The gallery keeps every figure and every drawn graph that a block of an example has made, without pyplot."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

SEEN = {}                       # by script; not in the scraper, which Sphinx keeps with its configuration


class FigureScraper:
    """Save what can be seen of the names of an example, once each."""

    def __call__(self, block, block_vars, gallery_conf):
        source, saved = block_vars["src_file"], []
        known = SEEN.setdefault(source, [])
        for value in list(block_vars["example_globals"].values()):
            drawn = isinstance(value, Figure) or hasattr(value, "_repr_svg_")
            if not drawn or any(value is other for other in known):
                continue
            known.append(value)
            path = next(block_vars["image_path_iterator"])
            if isinstance(value, Figure):
                value.savefig(path, dpi=110)
            else:
                path = path.removesuffix("png") + "svg"
                value.save(path)
            saved.append(path)
        return figure_rst(saved, gallery_conf["src_dir"])
