# mypy: disallow-untyped-defs=False
r"""The kernels of `triton`. The formulas are in `reference`.

A program takes some edges of one node at a time, all channels of each.
"""

import triton
import triton.language as tl


@triton.jit
def arguments(
    rows, row_ld, node, base, edge, weight, e, valid, c, inside,
    DIMS: tl.constexpr,
):
    r"""What the activations of some edges are of."""
    x = tl.load(rows + node[:, None] * row_ld + c[None, :],
                mask=valid[:, None] & inside[None, :], other=0.)
    x = x.to(tl.float32) + base[None, :]
    for d in range(DIMS):
        number = tl.load(edge + e * DIMS + d, mask=valid, other=0.)
        w = tl.load(weight + c * DIMS + d, mask=inside, other=0.)
        x += number.to(tl.float32)[:, None] * w.to(tl.float32)[None, :]
    return x


@triton.jit
def below(x):
    r"""The normal distribution's cumulative function."""
    return 0.5 * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def slope_of(x):
    r"""The derivative of activations."""
    return below(x) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327


@triton.jit
def centered(x, inside, CHANNELS: tl.constexpr):
    r"""Activations less their mean, that mean, and mean squares."""
    g = tl.where(inside[None, :], x * below(x), 0.)
    mean = tl.sum(g, 1) / CHANNELS
    g = tl.where(inside[None, :], g - mean[:, None], 0.)
    return g, mean, tl.sum(g * g, 1) / CHANNELS


@triton.jit
def share_of(begin, end, MEAN: tl.constexpr):
    r"""Of an edge in the sum, and of the shift."""
    size = (end - begin).to(tl.float32)
    share, weight = 1., size
    if MEAN:
        share, weight = 1. / tl.maximum(size, 1.), tl.minimum(size, 1.)
    return share, weight


@triton.jit
def forward(
    src, dst, edge, weight, scale, shift, source, in_ptr, in_edges, order,
    out, src_ld, dst_ld, eps,
    MEAN: tl.constexpr, DIMS: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr, EDGES: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    if order is not None:
        i = tl.load(order + i)
    c = tl.arange(0, WIDTH)
    inside = c < CHANNELS
    base = tl.load(dst + i * dst_ld + c, mask=inside, other=0.).to(tl.float32)
    begin, end = tl.load(in_ptr + i), tl.load(in_ptr + i + 1)
    total = tl.zeros([WIDTH], tl.float32)
    for at in range(begin, end, EDGES):
        k = at + tl.arange(0, EDGES)
        valid = k < end
        e = tl.load(in_edges + k, mask=valid, other=0)
        node = tl.load(source + e, mask=valid, other=0)
        x = arguments(src, src_ld, node, base, edge, weight, e, valid, c,
                      inside, DIMS)
        g, _, square = centered(x, inside, CHANNELS)
        y = g * tl.rsqrt(square + eps)[:, None]
        total += tl.sum(tl.where(valid[:, None], y, 0.), 0)
    share, part = share_of(begin, end, MEAN)
    y = total * share * tl.load(scale + c, mask=inside, other=0.)
    if shift is not None:
        y += part * tl.load(shift + c, mask=inside, other=0.)
    tl.store(out + i * CHANNELS + c, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    src, dst, edge, weight, scale, source, in_ptr, in_edges, order, grad,
    pull, lines, d_dst, d_edge, sums, src_ld, dst_ld, targets, eps,
    MEAN: tl.constexpr, DIMS: tl.constexpr, SPACE: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, EDGES: tl.constexpr,
):
    r"""Gradients of targets, of edges, and each program's part of those of
    weights; what `backward_sources` reads.
    """
    program = tl.program_id(0)
    c = tl.arange(0, WIDTH)
    dims = tl.arange(0, SPACE)
    inside = c < CHANNELS
    factor = tl.load(scale + c, mask=inside, other=0.).to(tl.float32)
    d_weight = tl.zeros([SPACE, WIDTH], tl.float32)
    d_scale = tl.zeros([WIDTH], tl.float32)
    d_shift = tl.zeros([WIDTH], tl.float32)
    step = tl.num_programs(0)
    for turn in range(0, (targets - program + step - 1) // step):
        i = program.to(tl.int64) + turn * step
        if order is not None:
            i = tl.load(order + i)
        base = tl.load(dst + i * dst_ld + c, mask=inside, other=0.)
        base = base.to(tl.float32)
        begin, end = tl.load(in_ptr + i), tl.load(in_ptr + i + 1)
        share, part = share_of(begin, end, MEAN)
        g = tl.load(grad + i * CHANNELS + c, mask=inside, other=0.)
        g = g.to(tl.float32)
        d_shift += g * part
        p = g * share * factor
        p = tl.where(inside, p - tl.sum(p, 0) / CHANNELS, 0.)
        tl.store(pull + i * CHANNELS + c, p, mask=inside)
        total = tl.zeros([WIDTH], tl.float32)
        changes = tl.zeros([WIDTH], tl.float32)
        for at in range(begin, end, EDGES):
            k = at + tl.arange(0, EDGES)
            valid = k < end
            e = tl.load(in_edges + k, mask=valid, other=0)
            node = tl.load(source + e, mask=valid, other=0)
            x = arguments(src, src_ld, node, base, edge, weight, e, valid, c,
                          inside, DIMS)
            y, mean, square = centered(x, inside, CHANNELS)
            r = tl.rsqrt(square + eps)
            unit = tl.where(valid[:, None], y * r[:, None], 0.)
            total += tl.sum(unit, 0)
            along = tl.sum(unit * p[None, :], 1) / CHANNELS
            by = -r * r * along
            d = slope_of(x) * (r[:, None] * p[None, :] + by[:, None] * y)
            d = tl.where(valid[:, None] & inside[None, :], d, 0.)
            changes += tl.sum(d, 0)
            if lines is not None:
                tl.store(lines + e * 3, r, mask=valid)
                tl.store(lines + e * 3 + 1, by, mask=valid)
                tl.store(lines + e * 3 + 2, mean, mask=valid)
            numbers = tl.load(
                edge + e[None, :] * DIMS + dims[:, None],
                mask=valid[None, :] & (dims < DIMS)[:, None], other=0.)
            d_weight += tl.dot(numbers.to(tl.float32), d,
                               input_precision='ieee')
            if d_edge is not None:
                for n in range(DIMS):
                    w = tl.load(weight + c * DIMS + n, mask=inside, other=0.)
                    tl.store(d_edge + e * DIMS + n,
                             tl.sum(d * w.to(tl.float32)[None, :], 1),
                             mask=valid)
        d_scale += g * share * total
        if d_dst is not None:
            tl.store(d_dst + i * CHANNELS + c, changes, mask=inside)
    sums += program * (SPACE + 2) * WIDTH
    tl.store(sums + dims[:, None] * WIDTH + c[None, :], d_weight)
    tl.store(sums + SPACE * WIDTH + c, d_scale)
    tl.store(sums + (SPACE + 1) * WIDTH + c, d_shift)


@triton.jit
def backward_sources(
    src, dst, edge, weight, target, out_ptr, out_edges, order, pull, lines,
    d_src, src_ld, dst_ld,
    DIMS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
    EDGES: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    if order is not None:
        i = tl.load(order + i)
    c = tl.arange(0, WIDTH)
    inside = c < CHANNELS
    base = tl.load(src + i * src_ld + c, mask=inside, other=0.).to(tl.float32)
    end = tl.load(out_ptr + i + 1)
    total = tl.zeros([WIDTH], tl.float32)
    for at in range(tl.load(out_ptr + i), end, EDGES):
        k = at + tl.arange(0, EDGES)
        valid = k < end
        e = tl.load(out_edges + k, mask=valid, other=0)
        node = tl.load(target + e, mask=valid, other=0)
        x = arguments(dst, dst_ld, node, base, edge, weight, e, valid, c,
                      inside, DIMS)
        p = tl.load(pull + node[:, None] * CHANNELS + c[None, :],
                    mask=valid[:, None] & inside[None, :], other=0.)
        a = tl.load(lines + e * 3, mask=valid, other=0.)
        b = tl.load(lines + e * 3 + 1, mask=valid, other=0.)
        mean = tl.load(lines + e * 3 + 2, mask=valid, other=0.)
        d = slope_of(x) * (a[:, None] * p + b[:, None] * (
            x * below(x) - mean[:, None]))
        total += tl.sum(tl.where(valid[:, None], d, 0.), 0)
    tl.store(d_src + i * CHANNELS + c, total, mask=inside)
