# mypy: disallow-untyped-defs=False
r"""What `triton` launches, on tables of 32-bit numbers with one column per
position in the tree.

Rows of a table are `num` numbers long and are reached by adding that to a
pointer, as the number of all its elements may have more than 32 bits.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=['num', 'clouds', 'levels', 'steps'])
def lay_out(cloud_of, counts, sizes, scratch, starts, num, clouds, levels,
            steps, BLOCK: tl.constexpr):
    r"""Writes :obj:`starts`, shape :math:`(L, N)`: see `Layout.starts`.

    A program goes down from the root with some positions, one per thread.
    What it has to keep per level is in its columns of :obj:`scratch`.
    :obj:`sizes` are the slots of each level's balls, then the slots of each
    level that make a point of the next.
    """
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    cloud = tl.load(cloud_of + here, mask=real, other=0)
    begin = tl.load(counts + cloud, mask=real, other=0)
    size = tl.load(counts + clouds + cloud, mask=real, other=1)
    counts += 2 * clouds + cloud
    levels_num = levels * tl.cast(num, tl.int64)
    balls = scratch + here
    parts = balls + levels_num
    base = parts + levels_num
    width = base + levels_num
    placed = width + levels_num
    start = starts + here
    shift = tl.zeros([BLOCK], tl.int64)
    for level in range(levels):
        count = tl.load(counts + level * clouds, mask=real, other=1)
        first = tl.load(counts + (levels + level) * clouds, mask=real,
                        other=0)
        zero = tl.zeros([BLOCK], tl.int32)
        tl.store(balls + shift, count, mask=real)
        tl.store(base + shift, first, mask=real)
        tl.store(start + shift, zero, mask=real)
        tl.store(width + shift, zero, mask=real)
        tl.store(placed + shift, zero, mask=real)
        shift += num
    for _step in range(steps):
        left = _divide(balls, parts, size, real, num, levels)
        is_left = here - begin < left
        one = size == 1
        shift = tl.zeros([BLOCK], tl.int64)
        for level in range(levels):
            part = tl.load(parts + shift, mask=real, other=0)
            count = tl.load(balls + shift, mask=real, other=1)
            first = tl.load(base + shift, mask=real, other=0)
            begins = tl.load(start + shift, mask=real, other=0)
            wide = tl.load(width + shift, mask=real, other=1)
            done = tl.load(placed + shift, mask=real, other=0) != 0
            # Enters a ball, and is done in one point of the level:
            ball_size = tl.load(sizes + level)
            enters = (count == 1) & (wide == 0)
            begins = tl.where(enters, first * ball_size, begins)
            wide = tl.where(enters, ball_size, wide)
            done = done | one
            stride = tl.load(sizes + levels + level)
            one = done | ((wide > 0) & (wide <= stride))
            # Goes left or right:
            moves = (size > 1) & (done == 0)
            wide = tl.where(moves, wide // 2, wide)
            begins += tl.where(moves & (is_left == 0), wide, 0)
            tl.store(start + shift, begins, mask=real)
            tl.store(width + shift, wide, mask=real)
            tl.store(placed + shift, done.to(tl.int32), mask=real)
            tl.store(balls + shift, _descend(count, part, is_left), mask=real)
            tl.store(base + shift, tl.where(is_left, first, first + part),
                     mask=real)
            shift += num
        begin = tl.where(is_left, begin, begin + left)
        size = tl.where(is_left, left, size - left)


@triton.jit
def _divide(balls, parts, size, real, num, levels):
    r"""Returns how many points go left, and writes how many balls do: the
    coarsest level with two balls or more is halved; what lies below is shared
    out in proportion.
    """
    whole = tl.full(size.shape, 1, tl.int64)
    part = tl.full(size.shape, 0, tl.int64)
    shift = tl.zeros(size.shape, tl.int64) + (levels - 1) * tl.cast(
        num, tl.int64)
    for _level in range(levels):
        count = tl.load(balls + shift, mask=real, other=1).to(tl.int64)
        part = tl.where(part > 0, count * part // whole, count // 2)
        whole = count
        tl.store(parts + shift, part.to(tl.int32), mask=real)
        shift -= num
    left = tl.where(part > 0, size * part // whole, size // 2)
    return left.to(tl.int32)


@triton.jit
def _descend(count, part, is_left):
    r"""Returns the balls of a node's half: all, where there is but one."""
    return tl.where(is_left & (part > 0), part, count - part)


@triton.jit(do_not_specialize=['num', 'levels', 'steps'])
def tree_nodes(state, parts, nodes, num, levels, steps, BLOCK: tl.constexpr):
    r"""Writes where each position's node begins, is split and ends, for some
    depths, shape :math:`(steps, 3, N)`. Goes on from :obj:`state`: where its
    node begins and ends, and its balls. One position per thread, too.
    """
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    state += here
    parts += here
    nodes += here
    begin = tl.load(state, mask=real, other=0)
    end = tl.load(state + num, mask=real, other=1)
    balls = state + 2 * tl.cast(num, tl.int64)
    for _step in range(steps):
        left = _divide(balls, parts, end - begin, real, num, levels)
        middle = begin + left
        nodes = _store_node(nodes, begin, middle, end, real, num)
        is_left = here < middle
        shift = tl.zeros([BLOCK], tl.int64)
        for _level in range(levels):
            part = tl.load(parts + shift, mask=real, other=0)
            count = tl.load(balls + shift, mask=real, other=1)
            tl.store(balls + shift, _descend(count, part, is_left), mask=real)
            shift += num
        begin, end = (tl.where(is_left, begin, middle),
                      tl.where(is_left, middle, end))
    tl.store(state, begin, mask=real)
    tl.store(state + num, end, mask=real)


@triton.jit(do_not_specialize=['num', 'steps'])
def ball_nodes(state, first, nodes, num, steps, BLOCK: tl.constexpr):
    r"""As :func:`tree_nodes`, where nodes are ranges of balls, of which
    :obj:`state` has the first and the one after the last.
    """
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    state += here
    nodes += here
    low = tl.load(state, mask=real, other=0)
    high = tl.load(state + num, mask=real, other=0)
    for _step in range(steps):
        center = low + (high - low) // 2
        middle = tl.load(first + center, mask=real, other=0)
        nodes = _store_node(nodes, tl.load(first + low, mask=real, other=0),
                            middle,
                            tl.load(first + high, mask=real, other=0), real,
                            num)
        # A single ball is the right half of itself.
        is_left = here < middle
        low, high = (tl.where(is_left, low, center),
                     tl.where(is_left, center, high))
    tl.store(state, low, mask=real)
    tl.store(state + num, high, mask=real)


@triton.jit
def _store_node(nodes, begin, middle, end, real, num):
    r"""Returns where the next one belongs."""
    tl.store(nodes, begin, mask=real)
    nodes += num
    tl.store(nodes, middle, mask=real)
    nodes += num
    tl.store(nodes, end, mask=real)
    return nodes + num


@triton.jit
def _load_node(nodes, depth, real, num):
    nodes += depth * 3 * tl.cast(num, tl.int64)
    begin = tl.load(nodes, mask=real, other=0)
    nodes += num
    middle = tl.load(nodes, mask=real, other=0)
    nodes += num
    return begin, middle, tl.load(nodes, mask=real, other=0)


@triton.jit
def _mark(lists, pos, goes_left, here, real, begin, middle, end, num, dim):
    r"""Marks the points that lie left on their nodes' widest axis."""
    chosen = lists + here
    most = tl.full(here.shape, -1., tl.float64)
    for axis in range(dim):
        low = tl.load(lists + begin, mask=real, other=0).to(tl.int64)
        high = tl.load(lists + end - 1, mask=real, other=0).to(tl.int64)
        low = tl.load(pos + low * dim + axis, mask=real, other=0.)
        high = tl.load(pos + high * dim + axis, mask=real, other=0.)
        # Never overflows:
        extent = 0.5 * high.to(tl.float64) - 0.5 * low.to(tl.float64)
        chosen = tl.where(extent > most, lists + here, chosen)
        most = tl.where(extent > most, extent, most)
        lists += num
    point = tl.load(chosen, mask=real, other=0)
    tl.store(goes_left + point, (here < middle).to(tl.int8), mask=real)


@triton.jit
def _load_points(points, goes_left, here, real, middle):
    r"""Returns the points at some positions, whether they go left, and by how
    much there are more of those than positions to the left.

    Each node has as many of either, so sums over positions before this one
    are those over its node alone.
    """
    point = tl.load(points + here, mask=real, other=0)
    left = tl.load(goes_left + point, mask=real, other=0).to(tl.int32)
    more = tl.where(real, left - (here < middle).to(tl.int32), 0)
    return point, left, more


@triton.jit
def _place(left, before, here, begin, middle):
    r"""Returns where points go: the order stays on either side.
    :obj:`before` sums up :func:`_load_points` before each position.
    """
    rank = before + tl.minimum(here, middle) - begin
    return tl.where(left != 0, begin + rank, middle + (here - begin - rank))


@triton.jit(do_not_specialize=['depth', 'num', 'dim'])
def mark(lists, pos, nodes, depth, goes_left, num, dim, BLOCK: tl.constexpr):
    r"""Marks the points that go left, at any node."""
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    begin, middle, end = _load_node(nodes + here, depth, real, num)
    _mark(lists, pos, goes_left, here, real, begin, middle, end, num, dim)


@triton.jit(do_not_specialize=['depth', 'num'])
def add_up(lists, nodes, depth, goes_left, sums, num, BLOCK: tl.constexpr):
    r"""Sums up :func:`_load_points` of every block of every axis."""
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    axis = tl.program_id(1)
    _, middle, _ = _load_node(nodes + here, depth, real, num)
    _, _, more = _load_points(lists + axis.to(tl.int64) * num, goes_left,
                              here, real, middle)
    block = axis * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + block, tl.sum(more, 0))


@triton.jit(do_not_specialize=['depth', 'num'])
def move(lists, out, nodes, depth, goes_left, sums, num,
         BLOCK: tl.constexpr):
    r"""Moves points within their nodes, given the sums over blocks up to and
    with each.
    """
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    axis = tl.program_id(1)
    row = axis.to(tl.int64) * num
    begin, middle, _ = _load_node(nodes + here, depth, real, num)
    point, left, more = _load_points(lists + row, goes_left, here, real,
                                     middle)
    block = axis * tl.num_programs(0) + tl.program_id(0)
    before = tl.load(sums + block - 1, mask=block > 0, other=0)
    before += tl.cumsum(more, 0) - more
    to = _place(left, before, here, begin, middle)
    tl.store(out + row + to, point, mask=real)


@triton.jit(do_not_specialize=['num', 'dim', 'steps'])
def finish(lists, pos, nodes, goes_left, num, dim, steps,
           MOST: tl.constexpr):
    r"""Splits small nodes some times, in place.

    A program has the nodes that begin at some :obj:`MOST` positions; as none
    is larger than that, they end within as many positions more.
    """
    here = tl.program_id(0) * MOST + tl.arange(0, 2 * MOST)
    real = here < num
    begin = tl.load(nodes + here, mask=real, other=0)
    real = real & (begin // MOST == tl.program_id(0))
    nodes += here
    for step in range(steps):
        begin, middle, end = _load_node(nodes, step, real, num)
        tl.debug_barrier()  # points are where the last step moved them
        _mark(lists, pos, goes_left, here, real, begin, middle, end, num, dim)
        tl.debug_barrier()  # all are marked
        points = lists
        for _axis in range(dim):
            point, left, more = _load_points(points, goes_left, here, real,
                                             middle)
            before = tl.cumsum(more, 0) - more
            to = _place(left, before, here, begin, middle)
            tl.debug_barrier()  # all are loaded
            tl.store(points + to, point, mask=real)
            points += num


@triton.jit(do_not_specialize=['num', 'sweeps'])
def jacobi(a, v, num, sweeps, DONE: tl.constexpr, DIM: tl.constexpr,
           BLOCK: tl.constexpr):
    r"""Turns matrices into diagonal ones: see `eigenvectors._rotate`.

    A program has some matrices, one per thread, in columns of :obj:`a`. Those
    of :obj:`v` are turned along.
    """
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = here < num
    num = tl.cast(num, tl.int64)
    a += here
    v += here
    for _sweep in range(sweeps):
        for p in tl.static_range(DIM):
            for q in tl.static_range(p + 1, DIM):
                _rotate(a, v, num, real, p, q, DONE, DIM)


@triton.jit
def _rotate(a, v, num, real, p: tl.constexpr, q: tl.constexpr,
            DONE: tl.constexpr, DIM: tl.constexpr):
    app = tl.load(a + (p * DIM + p) * num, mask=real, other=0.)
    aqq = tl.load(a + (q * DIM + q) * num, mask=real, other=0.)
    apq = tl.load(a + (p * DIM + q) * num, mask=real, other=0.)
    apart = tl.abs(apq) > DONE
    half = (aqq - app) / tl.where(apart, 2. * apq, 1.)
    t = 1. / (tl.abs(half) + tl.sqrt(half * half + 1.))
    t = tl.where(half < 0., -t, t)
    t = tl.where(apart, t, 0.)
    c = 1. / tl.sqrt(t * t + 1.)
    s = t * c
    off = t * apq
    tl.store(a + (p * DIM + p) * num, app - off, mask=real)
    tl.store(a + (q * DIM + q) * num, aqq + off, mask=real)
    rest = tl.where(apart, 0., apq)
    tl.store(a + (p * DIM + q) * num, rest, mask=real)
    tl.store(a + (q * DIM + p) * num, rest, mask=real)
    for r in tl.static_range(DIM):
        if (r != p) and (r != q):
            x = tl.load(a + (r * DIM + p) * num, mask=real, other=0.)
            y = tl.load(a + (r * DIM + q) * num, mask=real, other=0.)
            first = c * x - s * y
            second = s * x + c * y
            tl.store(a + (r * DIM + p) * num, first, mask=real)
            tl.store(a + (p * DIM + r) * num, first, mask=real)
            tl.store(a + (r * DIM + q) * num, second, mask=real)
            tl.store(a + (q * DIM + r) * num, second, mask=real)
        x = tl.load(v + (r * DIM + p) * num, mask=real, other=0.)
        y = tl.load(v + (r * DIM + q) * num, mask=real, other=0.)
        tl.store(v + (r * DIM + p) * num, c * x - s * y, mask=real)
        tl.store(v + (r * DIM + q) * num, s * x + c * y, mask=real)
