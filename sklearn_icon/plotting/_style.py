"""Colours and axes that all displays share."""

# Ten colours chosen to be told apart with any colour vision: Petroff, "Accessible color sequences for data
# visualization", 2021, here with its greys last.
COLORS = "#3f90da #ffa90e #bd1f01 #832db6 #a96b59 #e76300 #b9ac70 #92dadd #717581 #94a4a2".split()
LIGHT, DARK = "#d6d6d6", "#555555"


def new_axes(ax, figsize=None):
    """Return the axes to draw on, new ones if None, and their figure."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def line_options(kwargs, **defaults):
    """Return a line's options, whatever of their two names the user chose."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {"color": COLORS[0]} | defaults | normalize_kwargs(kwargs, Line2D)
