"""Layered drawing of a graph without cycles: every edge goes down, few cross, long ones run straight and past boxes.

The four steps of Sugiyama, Tagawa & Toda (1981). *Ranks* keep edges short. An edge over several ranks gets a dummy, a
place to pass through, in each rank between. *Orders* within the ranks come from medians and exchanges of neighbours
(Gansner et al., A technique for drawing directed graphs, 1993). *Columns* come from aligning each with the median of
its neighbours, in four directions, and taking the middle of the four (Brandes & Koepf, Fast and simple horizontal
coordinate assignment, 2002).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BESIDE, PASSING, BELOW = 26.0, 16.0, 34.0           # pixels between boxes, beside an edge that passes, between ranks
SWEEPS = 24
Point = tuple[float, float]


@dataclass
class Layout:
    """Where everything is, in pixels from the upper left corner.

    Attributes
    ----------
    ranks : list of int
        Of each box, 0 at the top.
    centers : list of (x, y)
        Of each box.
    routes : list of list of (x, y)
        Of each edge, from the lower side of a box to the upper side of another: straight between two points with the
        same x, a curve that begins and ends vertically between others.
    width, height : float
        Of the whole.
    """

    ranks: list[int]
    centers: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def arrange(sizes: Sequence[Point], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes and edges.

    Parameters
    ----------
    sizes : sequence of (width, height)
        Of the boxes, in pixels.
    edges : sequence of (int, int)
        From a box to another, by their places in `sizes`. Two boxes may have several.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        When the edges go in a circle.

    Examples
    --------
    >>> from tinygrad_opt.lab.drawing.layered import arrange
    >>> layout = arrange([(40, 20)] * 3, [(0, 1), (1, 2)])
    >>> layout.ranks, layout.centers
    ([0, 1, 2], [(20.0, 10.0), (20.0, 64.0), (20.0, 118.0)])
    """
    if not sizes:
        return Layout([], [], [], 0.0, 0.0)
    ranks = _ranks(len(sizes), edges)
    web = _Web(sizes, edges, ranks)
    web.order()
    x = _columns(web)
    return _drawn(sizes, edges, ranks, web, x)


# ---- ranks ------------------------------------------------------------------------------------------------


def _ranks(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return ranks of small total length of edges: as high as possible first, then down towards where it is used."""
    above: list[list[int]] = [[] for _ in range(n)]
    below: list[list[int]] = [[] for _ in range(n)]
    for u, v in edges:
        above[v].append(u)
        below[u].append(v)
    missing = [len(each) for each in above]
    sequence = [v for v in range(n) if not missing[v]]
    for u in sequence:
        for v in below[u]:
            missing[v] -= 1
            if not missing[v]:
                sequence.append(v)
    if len(sequence) < n:
        raise ValueError("the edges go in a circle: only a graph without cycles has ranks")
    ranks = [0] * n
    for v in sequence:
        ranks[v] = 1 + max((ranks[u] for u in above[v]), default=-1)
    # What only one box needs comes along with it: it holds nothing back.
    holding = [sum(len(above[u]) > 0 or len(below[u]) > 1 for u in each) for each in above]
    moved = True
    while moved:                                    # every move shortens the edges, or keeps their length and goes down
        moved = False
        for u in reversed(sequence):
            if below[u] and len(below[u]) >= holding[u]:
                lowest = min(ranks[v] for v in below[u]) - 1
                moved |= lowest > ranks[u]
                ranks[u] = lowest
    return ranks


# ---- orders -----------------------------------------------------------------------------------------------


class _Web:
    """Boxes and dummies in their ranks, and which is linked with which in the rank above and below."""

    def __init__(self, sizes: Sequence[Point], edges: Sequence[tuple[int, int]], ranks: list[int]) -> None:
        self.n = len(sizes)                         # what comes later is a dummy
        self.width = [width for width, _ in sizes]
        self.above: list[list[int]] = [[] for _ in sizes]
        self.below: list[list[int]] = [[] for _ in sizes]
        self.ranks, self.paths = list(ranks), []
        for u, v in edges:
            path = [u]
            for rank in range(ranks[u] + 1, ranks[v]):
                path.append(len(self.ranks))
                self.ranks.append(rank)
                self.width.append(0.0)
                self.above.append([])
                self.below.append([])
            path.append(v)
            for a, b in pairwise(path):
                self.below[a].append(b)
                self.above[b].append(a)
            self.paths.append(path)
        self.layers: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
        for v in self._in_order_of_use():
            self.layers[self.ranks[v]].append(v)
        self.place = [0] * len(self.ranks)
        for layer in self.layers:
            self._number(layer)

    def _in_order_of_use(self) -> list[int]:
        """Return all from the results up, so that the first argument of a call comes to stand on the left."""
        seen: dict[int, None] = {}
        stack = [v for v in reversed(range(len(self.ranks))) if not self.below[v]]
        while stack:
            v = stack.pop()
            if v not in seen:
                seen[v] = None
                stack += reversed(self.above[v])
        return list(seen)

    def _number(self, layer: list[int]) -> None:
        for k, v in enumerate(layer):
            self.place[v] = k

    def crossings(self) -> int:
        """Return how often two edges cross."""
        total = 0
        for layer in self.layers:
            ends: list[int] = []
            for u in layer:
                lower = sorted(self.place[v] for v in self.below[u])
                total += sum(len(ends) - bisect_right(ends, end) for end in lower)
                for end in lower:
                    insort(ends, end)
        return total

    def order(self) -> None:
        """Order the ranks so that few edges cross: of some sweeps down and up, the best."""
        best, order = self.crossings(), [list(layer) for layer in self.layers]
        for sweep in range(SWEEPS):
            if not best:
                break
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                self._by_median(layer, self.above if down else self.below)
            self._exchange()
            crossings = self.crossings()
            if crossings < best:
                best, order = crossings, [list(layer) for layer in self.layers]
        self.layers = order
        for layer in self.layers:
            self._number(layer)

    def _by_median(self, layer: list[int], neighbours: list[list[int]]) -> None:
        """Sort a rank by the medians of neighbours; what has none stays where it is."""
        def median(v: int) -> float:
            places = sorted(self.place[u] for u in neighbours[v])
            return (places[(len(places) - 1) // 2] + places[len(places) // 2]) / 2
        linked = iter(sorted((v for v in layer if neighbours[v]), key=median))
        layer[:] = [next(linked) if neighbours[v] else v for v in layer]
        self._number(layer)

    def _exchange(self) -> None:
        """Exchange neighbours in a rank for as long as that saves crossings."""
        def cost(u: int, v: int) -> int:
            return sum(self.place[a] > self.place[b] for side in (self.above, self.below)
                       for a in side[u] for b in side[v])
        better = True
        while better:
            better = False
            for layer in self.layers:
                for k in range(len(layer) - 1):
                    u, v = layer[k:k + 2]
                    if cost(u, v) > cost(v, u):
                        layer[k:k + 2] = v, u
                        self.place[u], self.place[v] = k + 1, k
                        better = True


# ---- columns ----------------------------------------------------------------------------------------------


def _columns(web: _Web) -> list[float]:
    """Return the x of boxes and dummies: the middle of four ways to align them."""
    conflicts, ways = _conflicts(web), []
    for layers, neighbours in ((web.layers, web.above), (web.layers[::-1], web.below)):
        for mirror in (1, -1):
            x = _compacted(web, *_aligned([layer[::mirror] for layer in layers], neighbours, conflicts))
            ways.append((mirror, [mirror * each for each in x]))
    sides = [_sides(web, x) for _, x in ways]
    left, right = min(sides, key=lambda side: side[1] - side[0])         # all line up with the narrowest
    shifted = [[each + (left - side[0] if mirror == 1 else right - side[1]) for each in x]
               for (mirror, x), side in zip(ways, sides)]
    return [sum(sorted(four)[1:3]) / 2 for four in zip(*shifted)]


def _sides(web: _Web, x: list[float]) -> tuple[float, float]:
    return (min(a - w / 2 for a, w in zip(x, web.width)), max(a + w / 2 for a, w in zip(x, web.width)))


def _conflicts(web: _Web) -> set[tuple[int, int]]:
    """Return the links, in both directions, that no line follows.

    They cross the straight part of a long edge, or come from the side: from a box with nothing above it, to one that
    continues what others began.
    """
    found = {pair for v, near in enumerate(web.above) if any(web.above[u] for u in near)
             for u in near if not web.above[u] for pair in ((u, v), (v, u))}
    for layer in web.layers:
        links = [(web.place[u], web.place[v], u, v) for u in layer for v in web.below[u]]
        straight = [link for link in links if min(link[2:]) >= web.n]
        for a, b, u, v in links:
            if min(u, v) < web.n and any((a - c) * (b - d) < 0 for c, d, *_ in straight):
                found |= {(u, v), (v, u)}
    return found


def _aligned(layers: list[list[int]], neighbours: list[list[int]],
             conflicts: set[tuple[int, int]]) -> tuple[list[list[int]], list[int]]:
    """Return the ranks as they are read, and of each box the first of the straight line that it stands in."""
    place = {v: k for layer in layers for k, v in enumerate(layer)}
    root, taken = list(range(len(neighbours))), set()
    for layer in layers:
        last = -1
        for v in layer:
            near = sorted((u for u in neighbours[v] if (u, v) not in conflicts), key=place.__getitem__)
            for u in near[(len(near) - 1) // 2:len(near) // 2 + 1]:
                if root[v] == v and u not in taken and place[u] > last:
                    root[v], last = root[u], place[u]
                    taken.add(u)
    return layers, root


def _compacted(web: _Web, layers: list[list[int]], root: list[int]) -> list[float]:
    """Return x for lines that stay straight: as far left as they can, then right to where their neighbours are."""
    after: dict[int, dict[int, float]] = {v: {} for v in dict.fromkeys(root)}
    for layer in layers:
        for u, v in pairwise(layer):
            gap = BESIDE if max(u, v) < web.n else PASSING
            apart = (web.width[u] + web.width[v]) / 2 + gap
            after[root[u]][root[v]] = max(apart, after[root[u]].get(root[v], 0.0))
    missing = dict.fromkeys(after, 0)
    for others in after.values():
        for v in others:
            missing[v] += 1
    sequence = [v for v in after if not missing[v]]
    x = dict.fromkeys(after, 0.0)
    for u in sequence:
        for v, apart in after[u].items():
            x[v] = max(x[v], x[u] + apart)
            missing[v] -= 1
            if not missing[v]:
                sequence.append(v)
    for u in reversed(sequence):
        if after[u]:
            x[u] = max(x[u], min(x[v] - apart for v, apart in after[u].items()))
    return [x[v] for v in root]


# ---- routes -----------------------------------------------------------------------------------------------


def _drawn(sizes: Sequence[Point], edges: Sequence[tuple[int, int]], ranks: list[int], web: _Web,
           x: list[float]) -> Layout:
    starts, ends = _ports(web, x, sizes, 0), _ports(web, x, sizes, -1)
    columns = [[start, *(x[v] for v in path[1:-1]), end] for path, start, end in zip(web.paths, starts, ends)]
    left, right = _sides(web, x)
    heights = [max(sizes[v][1] for v in layer if v < web.n) for layer in web.layers]
    slant = [0.0] * len(heights)                    # the widest step of an edge below each rank
    for (u, _), column in zip(edges, columns):
        for k, (a, b) in enumerate(pairwise(column), ranks[u]):
            slant[k] = max(slant[k], abs(a - b))
    tops = [0.0]
    for height, step in zip(heights, slant):
        tops.append(tops[-1] + height + BELOW + min(step / 12, BELOW))
    centers = [(x[v] - left, tops[ranks[v]] + heights[ranks[v]] / 2) for v in range(web.n)]
    routes = []
    for (u, v), column in zip(edges, columns):
        points = [(column[0], min(centers[u][1] + sizes[u][1] / 2, tops[ranks[u]] + heights[ranks[u]]))]
        for k, (a, b) in enumerate(pairwise(column), ranks[u]):
            points += [(a, tops[k] + heights[k]), (b, tops[k + 1])]
        points.append((column[-1], max(centers[v][1] - sizes[v][1] / 2, tops[ranks[v]])))
        routes.append([(a - left, y) for k, (a, y) in enumerate(points) if not k or (a, y) != points[k - 1]])
    return Layout(ranks, centers, routes, right - left, tops[len(heights) - 1] + heights[-1])


def _ports(web: _Web, x: list[float], sizes: Sequence[Point], end: int) -> list[float]:
    """Return where on the side of its box each edge begins (end 0) or ends (end -1): towards where it comes from."""
    inner, share, apart = (1, 0.12, 0.0) if end == 0 else (-2, 0.25, 9.0)
    ports, found = [0.0] * len(web.paths), {}
    for k, path in enumerate(web.paths):
        found.setdefault(path[end], []).append(k)
    for v, edges in found.items():
        reach = max(sizes[v][0] / 2 - 14, 0.0)
        wish = {k: max(-reach, min(reach, share * (x[web.paths[k][inner]] - x[v]))) for k in edges}
        edges.sort(key=wish.__getitem__)
        step = min(apart, 2 * reach / max(len(edges) - 1, 1))
        places = [wish[edges[0]]]
        for k in edges[1:]:                         # arrows do not lie on each other
            places.append(max(wish[k], places[-1] + step))
        shift = (sum(wish.values()) - sum(places)) / len(edges)
        shift = max(-reach - places[0], min(reach - places[-1], shift))
        for k, place in zip(edges, places):
            ports[k] = x[v] + place + shift
    return ports
