# mypy: disallow-untyped-defs=False, disable-error-code=assignment
r"""The kernels of `triton`. The formulas are in `reference`.

A program takes some edges of one node at a time, all channels of each. Vectors
are tuples, of a tile of channels for each of their components.
"""

import triton
import triton.language as tl

from torch_geometric_erwin.ops.message_passing.triton_kernels import (
    arguments,
    below,
    centered,
    share_of,
    slope_of,
)


@triton.jit
def load_all(at, mask, COUNT: tl.constexpr, STEP: tl.constexpr):
    r"""Tiles that are some steps apart."""
    out = ()
    for d in tl.static_range(COUNT):
        x = tl.load(at + d * STEP, mask=mask, other=0.)
        out += (x.to(tl.float32), )
    return out


@triton.jit
def zeros(COUNT: tl.constexpr, WIDTH: tl.constexpr):
    out = ()
    for _ in tl.static_range(COUNT):
        out += (tl.zeros([WIDTH], tl.float32), )
    return out


@triton.jit
def add_products(x, a, b, COUNT: tl.constexpr):
    for d in tl.static_range(COUNT):
        x += a[d] * b[d]
    return x


@triton.jit
def add_sums(totals, x, factors, COUNT: tl.constexpr):
    r"""Sums over edges, times a factor for each total."""
    out = ()
    for d in tl.static_range(COUNT):
        out += (totals[d] + tl.sum(x * factors[d], 0), )
    return out


@triton.jit
def row_of(x, c, inside):
    r"""Numbers of channels, zeros where there are none of them."""
    out = tl.zeros(c.shape, tl.float32)
    if x is not None:
        out = tl.load(x + c, mask=inside, other=0.).to(tl.float32)
    return out


@triton.jit
def forward(
    src, dst, vec, edge, unit, weight, scale, shift, source, in_ptr, in_edges,
    order, out, out_vec, src_ld, dst_ld, eps,
    MEAN: tl.constexpr, AXES: tl.constexpr, DIMS: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, EDGES: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    if order is not None:
        i = tl.load(order + i)
    c = tl.arange(0, WIDTH)
    inside = c < CHANNELS
    base = row_of(dst + i * dst_ld, c, inside)
    factor, lift = row_of(scale, c, inside), row_of(shift, c, inside)
    begin, end = tl.load(in_ptr + i), tl.load(in_ptr + i + 1)
    total = tl.zeros([WIDTH], tl.float32)
    along, near = zeros(AXES, WIDTH), zeros(AXES, WIDTH)
    for at in range(begin, end, EDGES):
        k = at + tl.arange(0, EDGES)
        valid = k < end
        e = tl.load(in_edges + k, mask=valid, other=0)
        node = tl.load(source + e, mask=valid, other=0)
        vectors = load_all(
            vec + node[:, None] * (AXES * CHANNELS) + c[None, :],
            valid[:, None] & inside[None, :], AXES, CHANNELS)
        units = load_all(unit + e[:, None] * AXES, valid[:, None], AXES, 1)
        x = arguments(src, src_ld, node, base, edge, weight, e, valid, c,
                      inside, DIMS)
        x = add_products(x, units, vectors, AXES)
        g, _, square = centered(x, inside, CHANNELS)
        m = g * tl.rsqrt(square + eps)[:, None] * factor[None, :]
        m = tl.where(valid[:, None], m + lift[None, :], 0.)
        total += tl.sum(m, 0)
        along = add_sums(along, m, units, AXES)
        near = add_sums(near, m, vectors, AXES)
    share, _ = share_of(begin, end, MEAN)
    tl.store(out + i * CHANNELS + c, (total * share).to(out.dtype.element_ty),
             mask=inside)
    out_vec += i * (2 * AXES * CHANNELS) + c
    for d in tl.static_range(AXES):
        to = out_vec + 2 * d * CHANNELS
        tl.store(to, (along[d] * share).to(out.dtype.element_ty), mask=inside)
        tl.store(to + CHANNELS, (near[d] * share).to(out.dtype.element_ty),
                 mask=inside)


@triton.jit
def backward(
    src, dst, vec, edge, unit, weight, scale, shift, source, in_ptr, in_edges,
    order, grad, grad_vec, lines, d_dst, d_edge, d_unit, sums, src_ld, dst_ld,
    targets, eps,
    MEAN: tl.constexpr, AXES: tl.constexpr, DIMS: tl.constexpr,
    SPACE: tl.constexpr, BY_DOT: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr, EDGES: tl.constexpr,
):
    r"""Gradients of targets, of edges, and each program's part of those of
    weights; what `backward_sources` reads.
    """
    program = tl.program_id(0)
    c = tl.arange(0, WIDTH)
    inside = c < CHANNELS
    factor, lift = row_of(scale, c, inside), row_of(shift, c, inside)
    dims = tl.arange(0, SPACE)
    if BY_DOT:
        d_weight = tl.zeros([SPACE, WIDTH], tl.float32)
    else:
        d_weight = zeros(DIMS, WIDTH)
    d_scale = tl.zeros([WIDTH], tl.float32)
    d_shift = tl.zeros([WIDTH], tl.float32)
    step = tl.num_programs(0)
    for turn in range(0, (targets - program + step - 1) // step):
        i = program.to(tl.int64) + turn * step
        if order is not None:
            i = tl.load(order + i)
        base = row_of(dst + i * dst_ld, c, inside)
        begin, end = tl.load(in_ptr + i), tl.load(in_ptr + i + 1)
        share, _ = share_of(begin, end, MEAN)
        to_sum = row_of(grad + i * CHANNELS, c, inside)
        row = grad_vec + i * (2 * AXES * CHANNELS) + c[None, :]
        to_unit = load_all(row, inside[None, :], AXES, 2 * CHANNELS)
        to_vec = load_all(row + CHANNELS, inside[None, :], AXES, 2 * CHANNELS)
        changes = tl.zeros([WIDTH], tl.float32)
        for at in range(begin, end, EDGES):
            k = at + tl.arange(0, EDGES)
            valid = k < end
            e = tl.load(in_edges + k, mask=valid, other=0)
            node = tl.load(source + e, mask=valid, other=0)
            vectors = load_all(
                vec + node[:, None] * (AXES * CHANNELS) + c[None, :],
                valid[:, None] & inside[None, :], AXES, CHANNELS)
            units = load_all(unit + e[:, None] * AXES, valid[:, None], AXES,
                             1)
            x = arguments(src, src_ld, node, base, edge, weight, e, valid, c,
                          inside, DIMS)
            x = add_products(x, units, vectors, AXES)
            y, mean, square = centered(x, inside, CHANNELS)
            r = tl.rsqrt(square + eps)
            y *= r[:, None]
            pull = add_products(tl.zeros_like(x) + to_sum[None, :], units,
                                to_unit, AXES)
            pull = add_products(pull, vectors, to_vec, AXES) * share
            pull = tl.where(valid[:, None], pull, 0.)
            d_scale += tl.sum(pull * y, 0)
            d_shift += tl.sum(pull, 0)
            pull *= factor[None, :]
            middle = tl.sum(pull, 1) / CHANNELS
            slant = tl.sum(pull * y, 1) / CHANNELS
            d = slope_of(x) * r[:, None] * (pull - middle[:, None]
                                            - slant[:, None] * y)
            d = tl.where(valid[:, None] & inside[None, :], d, 0.)
            changes += tl.sum(d, 0)
            if lines is not None:
                tl.store(lines + e * 5, r * share, mask=valid)
                tl.store(lines + e * 5 + 1, -r * middle, mask=valid)
                tl.store(lines + e * 5 + 2, -r * r * slant, mask=valid)
                tl.store(lines + e * 5 + 3, mean, mask=valid)
                tl.store(lines + e * 5 + 4, tl.zeros_like(r) + share,
                         mask=valid)
            if BY_DOT:
                numbers = tl.load(
                    edge + e[None, :] * DIMS + dims[:, None],
                    mask=valid[None, :] & (dims < DIMS)[:, None], other=0.)
                d_weight += tl.dot(numbers.to(tl.float32), d,
                                   input_precision='ieee')
            else:
                d_weight = add_sums(
                    d_weight, d, load_all(edge + e[:, None] * DIMS,
                                          valid[:, None], DIMS, 1), DIMS)
            if d_edge is not None:
                for n in range(DIMS):
                    w = tl.load(weight + c * DIMS + n, mask=inside, other=0.)
                    tl.store(d_edge + e * DIMS + n,
                             tl.sum(d * w.to(tl.float32)[None, :], 1),
                             mask=valid)
            if d_unit is not None:
                m = (y * factor[None, :] + lift[None, :]) * share
                for n in tl.static_range(AXES):
                    tl.store(d_unit + e * AXES + n,
                             tl.sum(m * to_unit[n] + d * vectors[n], 1),
                             mask=valid)
        if d_dst is not None:
            tl.store(d_dst + i * CHANNELS + c, changes, mask=inside)
    sums += program * (SPACE + 2) * WIDTH + c
    if BY_DOT:
        tl.store(sums[None, :] + dims[:, None] * WIDTH, d_weight)
    else:
        for n in tl.static_range(DIMS):
            tl.store(sums + n * WIDTH, d_weight[n])
    tl.store(sums + SPACE * WIDTH, d_scale)
    tl.store(sums + (SPACE + 1) * WIDTH, d_shift)


@triton.jit
def backward_sources(
    src, dst, vec, edge, unit, weight, scale, shift, target, out_ptr,
    out_edges, order, grad, grad_vec, lines, d_src, d_vec, src_ld, dst_ld,
    AXES: tl.constexpr, DIMS: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr, EDGES: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    if order is not None:
        i = tl.load(order + i)
    c = tl.arange(0, WIDTH)
    inside = c < CHANNELS
    base = row_of(src + i * src_ld, c, inside)
    factor, lift = row_of(scale, c, inside), row_of(shift, c, inside)
    vectors = load_all(vec + i * (AXES * CHANNELS) + c[None, :],
                       inside[None, :], AXES, CHANNELS)
    end = tl.load(out_ptr + i + 1)
    total, turns = tl.zeros([WIDTH], tl.float32), zeros(AXES, WIDTH)
    for at in range(tl.load(out_ptr + i), end, EDGES):
        k = at + tl.arange(0, EDGES)
        valid = k < end
        e = tl.load(out_edges + k, mask=valid, other=0)
        node = tl.load(target + e, mask=valid, other=0)
        there = valid[:, None] & inside[None, :]
        units = load_all(unit + e[:, None] * AXES, valid[:, None], AXES, 1)
        x = arguments(dst, dst_ld, node, base, edge, weight, e, valid, c,
                      inside, DIMS)
        x = add_products(x, units, vectors, AXES)
        pull = tl.load(grad + node[:, None] * CHANNELS + c[None, :],
                       mask=there, other=0.).to(tl.float32)
        row = grad_vec + node[:, None] * (2 * AXES * CHANNELS) + c[None, :]
        pull = add_products(
            pull, units, load_all(row, there, AXES, 2 * CHANNELS), AXES)
        to_vec = load_all(row + CHANNELS, there, AXES, 2 * CHANNELS)
        pull = add_products(pull, vectors, to_vec, AXES)
        a, b, slant, mean, share = load_all(
            lines + e[:, None] * 5, valid[:, None], 5, 1)
        g = x * below(x) - mean
        d = slope_of(x) * (a * factor[None, :] * pull + b + slant * g)
        d = tl.where(valid[:, None], d, 0.)
        m = a * g * factor[None, :] + share * lift[None, :]
        m = tl.where(valid[:, None], m, 0.)
        total += tl.sum(d, 0)
        turns = add_sums(add_sums(turns, d, units, AXES), m, to_vec, AXES)
    tl.store(d_src + i * CHANNELS + c, total, mask=inside)
    for n in tl.static_range(AXES):
        tl.store(d_vec + (i * AXES + n) * CHANNELS + c, turns[n], mask=inside)
