# mypy: disallow-untyped-defs=False
r"""What `triton` launches. A program computes one head of a tile of slots; the
programs of a tile follow each other, so that its positions stay in the cache.

A tile holds some slots of a ball, or several balls. Only real slots have rows.
`points` says which, those of a ball first where some of its slots are virtual;
`counts` then says how many it has, and is :obj:`None` otherwise. Arguments
that are :obj:`None` are not needed. Rows come with the strides of points and
heads.
"""

import triton
import triton.language as tl

# Adding and subtracting them rounds to integers, halves to even ones.
SHIFT = tl.constexpr(1.5 * 2**23)
SHIFT_DOUBLE = tl.constexpr(1.5 * 2**52)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=['num_slots'])
def gather(index, mask, points, counts, num_slots, BALL: tl.constexpr,
           GROUP: tl.constexpr, CHUNK: tl.constexpr):
    r"""Brings the points of each of some balls forward, and counts them."""
    balls = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    count = tl.zeros([GROUP], tl.int32)
    for start in range(0, BALL, CHUNK):
        slots = tl.arange(0, CHUNK)[None, :] + (balls * BALL + start)[:, None]
        real = tl.load(mask + slots, mask=slots < num_slots, other=0) != 0
        rank = tl.cumsum(real.to(tl.int32), 1) - 1
        to = (balls * BALL + count)[:, None] + rank
        tl.store(points + to, tl.load(index + slots, mask=real), mask=real)
        count += tl.sum(real.to(tl.int32), 1)
    tl.store(counts + balls, count, mask=balls * BALL < num_slots)


@triton.jit
def _load_points(points, counts, start, num_slots, SIZE: tl.constexpr,
                 BALL: tl.constexpr):
    r"""Returns the points, which of them there are, and their balls."""
    slots = start + tl.arange(0, SIZE)
    balls = slots // BALL
    real = slots < num_slots
    if counts is not None:
        count = tl.load(counts + balls, mask=real, other=0)
        real = slots - balls * BALL < count
    return tl.load(points + slots, mask=real, other=0), real, balls


@triton.jit
def _reach(counts, start, ROWS: tl.constexpr, BALL: tl.constexpr,
           SPAN: tl.constexpr):
    r"""Returns how many slots a tile has to look at."""
    reach = SPAN
    if counts is not None and ROWS <= BALL:
        count = tl.load(counts + start // BALL)
        reach = tl.where(start % BALL < count, count, 0)
    return reach


@triton.jit
def _places(x, stride, head_stride, points, real, head, E: tl.constexpr,
            WIDTH: tl.constexpr):
    columns = tl.arange(0, WIDTH)
    x += head * head_stride
    real = real[:, None]
    if E < WIDTH:
        real = real & (columns < E)[None, :]
    return x + points[:, None] * stride + columns[None, :], real


@triton.jit
def _load_rows(x, stride, head_stride, points, real, head, E: tl.constexpr,
               WIDTH: tl.constexpr):
    places, real = _places(x, stride, head_stride, points, real, head, E,
                           WIDTH)
    return tl.load(places, mask=real, other=0.)


@triton.jit
def _store_rows(x, stride, head_stride, points, real, head, rows,
                E: tl.constexpr, WIDTH: tl.constexpr):
    places, real = _places(x, stride, head_stride, points, real, head, E,
                           WIDTH)
    tl.store(places, rows.to(x.dtype.element_ty), mask=real)


@triton.jit
def _difference(pos, points, real, others, present, d: tl.constexpr,
                DIM: tl.constexpr):
    own = tl.load(pos + points * DIM + d, mask=real, other=0.)
    other = tl.load(pos + others * DIM + d, mask=present, other=0.)
    return own[:, None] - other[None, :]


@triton.jit
def _offset(pos, box, points, real, balls, others, present, nearest,
            d: tl.constexpr, DIM: tl.constexpr, BOX_ROWS: tl.constexpr):
    r"""Returns how far to the nearest images of the others, in one of the
    directions. In a lattice it is known.
    """
    if BOX_ROWS > 1:
        return nearest
    offset = _difference(pos, points, real, others, present, d, DIM)
    if box is not None:
        edge = tl.load(box + balls * DIM + d, mask=real, other=1.)
        images = offset * (1. / edge)[:, None]
        if pos.dtype.element_ty == tl.float64:
            images = (images + SHIFT_DOUBLE) - SHIFT_DOUBLE
        else:
            images = (images + SHIFT) - SHIFT
        offset -= edge[:, None] * images
    return offset.to(tl.float32)


@triton.jit
def _row(box, balls, real, row, DIM: tl.constexpr, BOX_ROWS: tl.constexpr):
    r"""Returns one of the rows of the cells of some balls, or of that of one
    ball, in up to three dimensions.
    """
    at = box + (balls * BOX_ROWS + row) * DIM
    x = tl.load(at, mask=real, other=0.).to(tl.float32)
    y = x * 0.
    z = x * 0.
    if DIM > 1:
        y = tl.load(at + 1, mask=real, other=0.).to(tl.float32)
    if DIM > 2:
        z = tl.load(at + 2, mask=real, other=0.).to(tl.float32)
    return x, y, z


@triton.jit
def _nearest(pos, box, points, real, balls, others, present,
             DIM: tl.constexpr, BOX_ROWS: tl.constexpr, BALL: tl.constexpr,
             ROWS: tl.constexpr):
    r"""Returns the offsets to nearest images in a lattice: as
    `nearest_image` of `ops/periodic.py`, in up to three dimensions.
    """
    x = _difference(pos, points, real, others, present, 0, DIM).to(tl.float32)
    y = x * 0.
    z = x * 0.
    if DIM > 1:
        y = _difference(pos, points, real, others, present, 1,
                        DIM).to(tl.float32)
    if DIM > 2:
        z = _difference(pos, points, real, others, present, 2,
                        DIM).to(tl.float32)
    if BALL < ROWS:
        balls, real = balls[:, None], real[:, None]
    else:  # one ball, whose cell is the same for all
        balls = tl.min(balls, 0)
        real = balls >= 0
    for b in tl.static_range(DIM):
        u, v, w = _row(box, balls, real, DIM + b, DIM, BOX_ROWS)
        times = ((x * u + y * v + z * w) + SHIFT) - SHIFT
        u, v, w = _row(box, balls, real, b, DIM, BOX_ROWS)
        x -= times * u
        y -= times * v
        z -= times * w
    most = x * 0.
    best = x * 0.  # plus or minus its row
    for row in range(2 * DIM, BOX_ROWS):
        u, v, w = _row(box, balls, real, row, DIM, BOX_ROWS)
        product = x * u + y * v + z * w
        gain = 2. * tl.abs(product) - (u * u + v * v + w * w)
        sign = tl.where(product < 0., -1., 1.) * row
        best = tl.where(gain > most, sign, best)
        most = tl.maximum(most, gain)
    for row in range(2 * DIM, BOX_ROWS):
        u, v, w = _row(box, balls, real, row, DIM, BOX_ROWS)
        sign = tl.where(best == row, 1., tl.where(best == -row, -1., 0.))
        x -= sign * u
        y -= sign * v
        z -= sign * w
    return x, y, z


@triton.jit
def _far(pos, box, points, real, balls, others, present, DIM: tl.constexpr,
         BOX_ROWS: tl.constexpr, SQUARED: tl.constexpr, BALL: tl.constexpr,
         ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r"""Returns distances and, in a lattice, the offsets."""
    far = tl.zeros([ROWS, COLUMNS], tl.float32)
    x = far
    y = far
    z = far
    if BOX_ROWS > 1:
        x, y, z = _nearest(pos, box, points, real, balls, others, present,
                           DIM, BOX_ROWS, BALL, ROWS)
    for d in tl.static_range(DIM):
        nearest = x if d == 0 else (y if d == 1 else z)
        offset = _offset(pos, box, points, real, balls, others, present,
                         nearest, d, DIM, BOX_ROWS)
        far += offset * offset
    if not SQUARED:
        far = tl.sqrt(far)
    return far, x, y, z


@triton.jit(do_not_specialize=['num_slots'])
def forward(
    query, query_stride, query_head_stride,
    key, key_stride, key_head_stride,
    value, value_stride, value_head_stride,
    out, out_stride, out_head_stride,
    lse, pos, slope, box, points, counts, num_slots, heads, scale,
    E: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr,
    BOX_ROWS: tl.constexpr, SQUARED: tl.constexpr, BALL: tl.constexpr,
    SPAN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    r"""Scores are to base 2; so is the logarithm that is stored."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    start = tl.program_id(0) // heads * ROWS
    own, real, balls = _load_points(points, counts, start, num_slots, ROWS,
                                    BALL)
    q = _load_rows(query, query_stride, query_head_stride, own, real, head, E,
                   WIDTH)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    rows = tl.zeros([ROWS, WIDTH], tl.float32)
    first = start // SPAN * SPAN
    for i in range(0, _reach(counts, start, ROWS, BALL, SPAN), COLUMNS):
        others, present, theirs = _load_points(points, counts, first + i,
                                               num_slots, COLUMNS, BALL)
        k = _load_rows(key, key_stride, key_head_stride, others, present, head,
                       E, WIDTH)
        v = _load_rows(value, value_stride, value_head_stride, others, present,
                       head, E, WIDTH)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        score *= scale * LOG2E
        if slope is not None:
            far, _, _, _ = _far(pos, box, own, real, balls, others, present,
                                DIM, BOX_ROWS, SQUARED, BALL, ROWS, COLUMNS)
            score += far * (tl.load(slope + head) * LOG2E)
        if counts is not None:
            score = tl.where(present[None, :], score, float('-inf'))
        if BALL < ROWS:
            same = balls[:, None] == theirs[None, :]
            score = tl.where(same, score, float('-inf'))
        # The first tile has a key for every point, so this is finite.
        high = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - high[:, None])
        shrink = tl.exp2(top - high)
        total = total * shrink + tl.sum(weight, 1)
        rows = tl.dot(weight.to(v.dtype), v, rows * shrink[:, None],
                      input_precision=PRECISION)
        top = high
    _store_rows(out, out_stride, out_head_stride, own, real, head,
                rows / total[:, None], E, WIDTH)
    tl.store(lse + own * heads + head, top + tl.log2(total), mask=real)


@triton.jit(do_not_specialize=['num_slots'])
def backward(
    left, left_stride, left_head_stride,
    right, right_stride, right_head_stride,
    left_other, left_other_stride, left_other_head_stride,
    right_other, right_other_stride, right_other_head_stride,
    out, out_stride, out_head_stride,
    d_left, d_left_stride, d_left_head_stride,
    d_right, d_right_stride, d_right_head_stride,
    d_pos, d_slope,
    lse, delta, pos, slope, box, points, counts, num_points, num_slots, heads,
    scale,
    E: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr,
    BOX_ROWS: tl.constexpr, SPACE: tl.constexpr, SQUARED: tl.constexpr,
    BALL: tl.constexpr, SPAN: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, QUERIES: tl.constexpr,
):
    r"""The gradients of queries, given these (left), the gradients of the sums
    (right) and all keys and values, or else those of keys and values, given
    all queries and gradients of the sums. The one for queries comes first: it
    stores the products (delta) of sums and their gradients, and its share of
    the gradients of positions.
    """
    head = (tl.program_id(0) % heads).to(tl.int64)
    tile = tl.program_id(0) // heads
    start = tile * ROWS
    own, real, balls = _load_points(points, counts, start, num_slots, ROWS,
                                    BALL)
    a = _load_rows(left, left_stride, left_head_stride, own, real, head, E,
                   WIDTH)
    b = _load_rows(right, right_stride, right_head_stride, own, real, head, E,
                   WIDTH)
    if QUERIES:
        o = _load_rows(out, out_stride, out_head_stride, own, real, head, E,
                       WIDTH)
        product = tl.sum(o.to(tl.float32) * b.to(tl.float32), 1)
        tl.store(delta + own * heads + head, product, mask=real)
        norm = tl.load(lse + own * heads + head, mask=real, other=0.)
        product, norm = product[:, None], norm[:, None]
    da = tl.zeros([ROWS, WIDTH], tl.float32)
    db = tl.zeros([ROWS, WIDTH], tl.float32)
    dpos = tl.zeros([ROWS, SPACE], tl.float32)
    dslope = tl.zeros([ROWS], tl.float32)
    axis = tl.arange(0, SPACE)[None, :]
    first = start // SPAN * SPAN
    for i in range(0, _reach(counts, start, ROWS, BALL, SPAN), COLUMNS):
        others, present, theirs = _load_points(points, counts, first + i,
                                               num_slots, COLUMNS, BALL)
        x = _load_rows(left_other, left_other_stride, left_other_head_stride,
                       others, present, head, E, WIDTH)
        y = _load_rows(right_other, right_other_stride,
                       right_other_head_stride, others, present, head, E,
                       WIDTH)
        score = tl.dot(a, tl.trans(x), input_precision=PRECISION)
        score *= scale * LOG2E
        if slope is not None:
            steep = tl.load(slope + head)
            far, off_x, off_y, off_z = _far(
                pos, box, own, real, balls, others, present, DIM, BOX_ROWS,
                SQUARED, BALL, ROWS, COLUMNS)
            score += far * (steep * LOG2E)
        if not QUERIES:
            at = others * heads + head
            norm = tl.load(lse + at, mask=present, other=0.)[None, :]
            product = tl.load(delta + at, mask=present, other=0.)[None, :]
        # None is above their logarithm, but for rounding.
        score = score - norm
        score = tl.where(score > 0., 0., score)
        if counts is not None:
            score = tl.where(present[None, :], score, float('-inf'))
        if BALL < ROWS:
            same = balls[:, None] == theirs[None, :]
            score = tl.where(same, score, float('-inf'))
        weight = tl.exp2(score)
        change = tl.dot(b, tl.trans(y), input_precision=PRECISION)
        change = weight * (change - product)
        if d_left is not None:
            da = tl.dot(change.to(x.dtype), x, da, input_precision=PRECISION)
        if d_right is not None:
            db = tl.dot(weight.to(y.dtype), y, db, input_precision=PRECISION)
        if d_slope is not None:
            dslope += tl.sum(change * far, 1)
        if d_pos is not None:
            pull = change * steep
            if SQUARED:
                pull *= 2.
            else:
                pull = tl.where(far > 0., pull / far, 0.)
            for d in tl.static_range(DIM):
                nearest = off_x if d == 0 else (off_y if d == 1 else off_z)
                offset = _offset(pos, box, own, real, balls, others, present,
                                 nearest, d, DIM, BOX_ROWS)
                force = tl.sum(pull * offset, 1)
                dpos += tl.where(axis == d, force[:, None], 0.)
    if d_left is not None:
        _store_rows(d_left, d_left_stride, d_left_head_stride, own, real, head,
                    da * scale, E, WIDTH)
    if d_right is not None:
        _store_rows(d_right, d_right_stride, d_right_head_stride, own, real,
                    head, db, E, WIDTH)
    if d_slope is not None:
        tl.store(d_slope + head * tl.cdiv(num_slots, ROWS) + tile,
                 tl.sum(dslope, 0))
    if d_pos is not None:
        to = d_pos + (head * num_points + own)[:, None] * DIM + axis
        here = real[:, None] & (axis < DIM)
        if not QUERIES:
            dpos += tl.load(to, mask=here, other=0.)
        tl.store(to, dpos, mask=here)
