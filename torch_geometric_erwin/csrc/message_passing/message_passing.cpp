// Message passing: the entry points, the lists of edges, how targets and
// sources are divided among threads, and the choice of a variant for the
// machine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "common/export.h"
#include "common/half.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "message_passing/args.h"

#define TGE_KERNELS "message_passing/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace messages {
namespace {

// `most` keeps wider vectors out, for tests.
const Kernel& variant(int64_t dims, int most) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(most);
  if (level == 2) return *avx512::kernels(dims);
  if (level == 1) return *avx2::kernels(dims);
#endif
  (void)most;
  return *portable::kernels(dims);
}

// Divides targets, in their order, such that parts take about equally long. How
// many there are does not depend on the number of threads, since sums depend on
// it.
void divide(const int64_t* ptr, const int64_t* order, int64_t targets,
            int64_t most, Parts* parts) {
  constexpr int64_t kNode = 2;  // what one takes, in units of an edge
  const int64_t all = ptr[targets] + kNode * targets;
  parts->count = std::min(std::max<int64_t>(all / (1 << 12), 1), most);
  std::fill(parts->first, parts->first + kMostParts + 1, targets);
  int64_t done = 0, part = 0;
  for (int64_t t = 0; t < targets; ++t) {
    while (part < parts->count && done >= all * part / parts->count)
      parts->first[part++] = t;
    const int64_t i = order ? order[t] : t;
    done += ptr[i + 1] - ptr[i] + kNode;
  }
}

// Numbers the sources of each part's edges, `in_rows`, and lists them.
void number_rows(const Args& a, Team& team, Parts* parts, int64_t* in_rows,
                 std::vector<std::vector<int64_t>>* sources) {
  struct Mark {
    int64_t part, row;
  };
  std::vector<std::vector<Mark>> marks(team.size());
  team.for_each(parts->count, [&](int64_t p, int thread) {
    auto& seen = marks[thread];
    if (seen.empty()) seen.assign(a.sources, {-1, 0});
    auto& list = (*sources)[p];
    list.clear();
    for (int64_t t = parts->first[p]; t < parts->first[p + 1]; ++t) {
      const int64_t i = a.order ? a.order[t] : t;
      for (int64_t k = a.in_ptr[i]; k < a.in_ptr[i + 1]; ++k) {
        const int64_t source = a.source[a.in_edges[k]];
        Mark& mark = seen[source];
        if (mark.part != p) {
          mark = {p, static_cast<int64_t>(list.size())};
          list.push_back(source);
        }
        in_rows[k] = mark.row;
      }
    }
  });
  parts->rows[0] = 0;
  for (int64_t p = 0; p < kMostParts; ++p)
    parts->rows[p + 1] = parts->rows[p] +
        (p < parts->count ? static_cast<int64_t>((*sources)[p].size()) : 0);
}

// Where edges know nothing of nearness, each part has nearly all sources; then
// there are few parts, lest rows take as much memory as messages would.
constexpr int64_t kFewParts = 8;

void make_parts(const Args& a, Team& team, Parts* parts, int64_t* in_rows,
                int64_t* out_ptr, int64_t* out_rows) {
  std::vector<std::vector<int64_t>> sources(kMostParts);
  divide(a.in_ptr, a.order, a.targets, kMostParts, parts);
  number_rows(a, team, parts, in_rows, &sources);
  if (parts->rows[kMostParts] > kFewParts * a.sources) {
    divide(a.in_ptr, a.order, a.targets, kFewParts, parts);
    number_rows(a, team, parts, in_rows, &sources);
  }
  std::fill_n(out_ptr, a.sources + 1, 0);
  for (int64_t p = 0; p < parts->count; ++p)
    for (const int64_t source : sources[p]) ++out_ptr[source + 1];
  for (int64_t i = 0; i < a.sources; ++i) out_ptr[i + 1] += out_ptr[i];
  std::vector<int64_t> next(out_ptr, out_ptr + a.sources);
  int64_t row = 0;
  for (int64_t p = 0; p < parts->count; ++p)
    for (const int64_t source : sources[p]) out_rows[next[source]++] = row++;
  std::fill(out_rows + row, out_rows + a.edges, 0);
}

int useful_threads(const Args& a, int64_t parts) {
  const double work = static_cast<double>(a.edges) * a.channels / 2e4;
  const int64_t most = std::max<int64_t>(
      std::min<int64_t>(parts, a.num_threads), 1);
  return static_cast<int>(std::min(1 + work, static_cast<double>(most)));
}

// What all threads read, in rows of whole vectors.
Shared share(const Args& a, int64_t whole, float* rows) {
  std::fill_n(rows, (a.dims + 3) * whole, 0.f);
  for (int64_t k = 0; k < a.dims; ++k)
    for (int64_t c = 0; c < a.channels; ++c)
      rows[k * whole + c] = a.weight[c * a.dims + k];
  float* const scale = rows + a.dims * whole;
  std::copy_n(a.scale, a.channels, scale);
  if (a.shift) std::copy_n(a.shift, a.channels, scale + whole);
  std::fill_n(scale + 2 * whole, a.channels, 1.f);
  return {rows, scale, scale + whole, scale + 2 * whole, whole};
}

int64_t whole(const Args& a, int64_t width) {
  return (a.channels + width - 1) / width * width;
}

void forward(const Kernel& kernel, const Args& a) {
  const int64_t width = whole(a, kernel.width);
  const int64_t size = Scratch::whole(kScratchRows * width);
  const int64_t common = Scratch::whole((a.dims + 3) * width);
  const Parts& parts = *a.parts;
  Team team(useful_threads(a, parts.count), a.num_threads);
  Scratch memory(common + team.size() * size);
  const Shared shared = share(a, width, memory.take(common));
  float* const scratch = memory.take(team.size() * size);
  team.for_each(parts.count, [&](int64_t p, int thread) {
    kernel.forward(a, shared, parts.first[p], parts.first[p + 1],
                   scratch + thread * size);
  });
}

// The gradient of each source is the sum of its rows.
void add_rows(const Args& a, Team& team, const float* rows, int64_t width) {
  team.chunks(a.sources, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* const out = a.d_src + i * a.channels;
      std::fill_n(out, a.channels, 0.f);
      for (int64_t k = a.out_ptr[i]; k < a.out_ptr[i + 1]; ++k) {
        const float* row = rows + a.out_rows[k] * width;
        for (int64_t c = 0; c < a.channels; ++c) out[c] += row[c];
      }
    }
  });
}

void backward(const Kernel& kernel, const Args& a) {
  const int64_t width = whole(a, kernel.width);
  const int64_t size = Scratch::whole(kScratchRows * width);
  const int64_t sums = Scratch::whole((a.dims + 2) * width);
  const int64_t common = Scratch::whole((a.dims + 3) * width);
  const Parts& parts = *a.parts;
  const int64_t rows = a.d_src ? parts.rows[parts.count] * width : 0;
  Team team(useful_threads(a, parts.count), a.num_threads);
  Scratch memory(common + team.size() * size + parts.count * sums + rows);
  const Shared shared = share(a, width, memory.take(common));
  float* const scratch = memory.take(team.size() * size);
  float* const added = memory.take(parts.count * sums);
  float* const all_rows = memory.take(rows);
  team.for_each(parts.count, [&](int64_t p, int thread) {
    std::fill_n(added + p * sums, sums, 0.f);
    float* const own = all_rows + parts.rows[p] * width;
    if (rows)
      std::fill_n(own, (parts.rows[p + 1] - parts.rows[p]) * width, 0.f);
    kernel.backward(a, shared, parts.first[p], parts.first[p + 1],
                    scratch + thread * size, added + p * sums,
                    rows ? own : nullptr);
  });
  for (int64_t k = 0; k < a.dims + 2; ++k) {
    float* const out = k < a.dims    ? a.d_weight + k * a.channels
                       : k == a.dims ? a.d_scale
                                     : a.d_shift;
    if (!out) continue;
    std::fill_n(out, a.channels, 0.f);
    for (int64_t p = 0; p < parts.count; ++p)
      for (int64_t c = 0; c < a.channels; ++c)
        out[c] += added[p * sums + k * width + c];
  }
  if (a.d_src) add_rows(a, team, all_rows, width);
}

// Lists the edges of each node in their order, and returns whether there are
// such nodes.
bool list_edges(const int64_t* node, int64_t edges, int64_t nodes,
                int64_t* ptr, int64_t* list) {
  std::fill_n(ptr, nodes + 1, 0);
  bool sorted = true;
  for (int64_t e = 0; e < edges; ++e) {
    if (node[e] < 0 || node[e] >= nodes) return false;
    sorted &= e == 0 || node[e - 1] <= node[e];
    ++ptr[node[e] + 1];
  }
  for (int64_t i = 0; i < nodes; ++i) ptr[i + 1] += ptr[i];
  if (sorted) {
    for (int64_t e = 0; e < edges; ++e) list[e] = e;
    return true;
  }
  std::vector<int64_t> next(ptr, ptr + nodes);
  for (int64_t e = 0; e < edges; ++e) list[next[node[e]]++] = e;
  return true;
}

}  // namespace
}  // namespace messages
}  // namespace tge

// 0: done; 2: out of memory.
TGE_EXPORT int tge_messages(const tge::messages::Args* args, int backward,
                            int most) {
  try {
    const auto& kernel = tge::messages::variant(args->dims, most);
    backward ? tge::messages::backward(kernel, *args)
             : tge::messages::forward(kernel, *args);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}

// Lists the edges of each target, and the rows of parts that have gradients of
// each source. 0: done; 1: there are sources or targets that there are no nodes
// for; 2: out of memory.
TGE_EXPORT int tge_list_edges(const int64_t* source, const int64_t* target,
                              const int64_t* order, int64_t edges,
                              int64_t sources, int64_t targets,
                              int64_t* in_ptr, int64_t* in_edges,
                              int64_t* out_ptr, int64_t* out_rows,
                              int64_t* in_rows, tge::messages::Parts* parts,
                              int num_threads) {
  try {
    tge::messages::Args args{};
    args.source = source;
    args.order = order;
    args.in_ptr = in_ptr;
    args.in_edges = in_edges;
    args.edges = edges;
    args.sources = sources;
    args.targets = targets;
    for (int64_t e = 0; e < edges; ++e)
      if (source[e] < 0 || source[e] >= sources) return 1;
    if (!tge::messages::list_edges(target, edges, targets, in_ptr, in_edges))
      return 1;
    tge::Team team(edges > 20000 ? num_threads : 1, num_threads);
    tge::messages::make_parts(args, team, parts, in_rows, out_ptr, out_rows);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
