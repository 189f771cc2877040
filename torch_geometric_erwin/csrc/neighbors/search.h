// One thread's searches: groups of neighbouring queries go through the tree
// together, once for each translation that brings points near. For one
// instruction set; hence no include guard.
//
// A group collects the blocks that any of its queries may need once, and each
// query then scans them without a branch per point.

namespace tge {
namespace neighbors {
namespace TGE_ISA {

// Blocks of points, each at one of a group's images.
template <class T>
struct Blocks {
  std::vector<int64_t> block;
  std::vector<int32_t> image;
  const int32_t* id = nullptr;

  int32_t id_at(int64_t slot) const {
    return id[block[slot / kLanes] * kLanes + slot % kLanes];
  }
};

template <class T>
struct ByNumber {
  const Blocks<T>* blocks;

  bool operator()(Id<T> a, Id<T> b) const {
    const int32_t x = blocks->id_at(a), y = blocks->id_at(b);
    return x != y ? x < y
                  : blocks->image[a / kLanes] < blocks->image[b / kLanes];
  }
};

// D = 0 is any dimension.
template <class T, int D>
class Searcher {
 public:
  Searcher(const Search& s, const Forest<T>& f, Lists& lists, Store& store)
      : s_(s),
        f_(f),
        lists_(lists),
        store_(store),
        lattice_(s),
        metric_(s.dim),
        near_(ByNumber<T>{&blocks_}),
        box_(2 * s.dim),
        ties_(s, f, metric_, images_) {
    blocks_.id = f.id.get();
    images_.only_home(s.dim);
  }

  TGE_TARGET void run(const Group& group) {
    if (s_.cloud_leaf[group.cloud] == s_.cloud_leaf[group.cloud + 1]) {
      for (int64_t q = group.begin; q < group.end; ++q)
        lists_.start[s_.query_id[q] + 1] = 0;
      return;
    }
    lattice_.enter(group.cloud);
    if (!lattice_.periodic()) images_.only_home(metric_.dim());
    todo_.assign(1, group);
    while (!todo_.empty()) {
      const Group next = todo_.back();
      todo_.pop_back();
      step(next);
    }
  }

 private:
  TGE_FAST const T* query(int64_t q) const {
    return static_cast<const T*>(s_.query) + q * metric_.dim();
  }

  // Searches a group, or halves it: what is far apart shares no work.
  TGE_TARGET void step(const Group& group) {
    surround(query(0), group.begin, group.end, metric_.dim(), box_.data());
    const bool single = group.end - group.begin == 1;
    choose_seeds(group);
    // Leaves are compact; other queries may come in any order.
    if (!single && group.leaf < 0 && scattered()) return halve(group);
    const T bound = bounds(group);
    list_images(group, bound);
    if (collect(group, bound, most_blocks(single))) {
      keep_shifts();
      for (int64_t q = group.begin; q < group.end; ++q) answer(q, group);
    } else if (single || tied_) {
      keep_shifts();
      for (int64_t q = group.begin; q < group.end; ++q) answer_tied(q, group);
    } else {
      halve(group);
    }
  }

  TGE_TARGET void halve(const Group& group) {
    const int64_t middle = (group.begin + group.end) / 2;
    todo_.push_back({middle, group.end, group.cloud, group.leaf});
    todo_.push_back({group.begin, middle, group.cloud, group.leaf});
  }

  // How many blocks to scan for each query of a group. Where points tie, more
  // than a few are better searched in order, once for queries in one place.
  TGE_FAST int64_t most_blocks(bool single) const {
    const bool spot = metric_.diameter(box_.data()) == 0;
    if (tied_) return (spot ? 64 : 256) + s_.k / 4;
    if (!single) return 1024 + std::min(s_.k, kMaxRank);
    return s_.k < kUnlimited ? 1024 + s_.k : INT64_MAX;
  }

  // Whether a group is much wider than what its queries look for.
  TGE_FAST bool scattered() const {
    double reach = std::sqrt(s_.radius);
    if (has_seeds_) reach = std::min(reach, seed_reach_);
    return std::sqrt(double(metric_.diameter(box_.data()))) > 2 * reach;
  }

  // Looks for a node around the group which holds, with its images in a block
  // of cells, comfortably many points, close together.
  TGE_TARGET void choose_seeds(const Group& group) {
    Node node = s_.root(group.cloud);
    has_seeds_ = false;
    // One more than k: one of them may be the query itself.
    if (s_.k >= kUnlimited ||
        (!lattice_.periodic() && s_.points(node) - 1 <= s_.k))
      return;
    while (try_seeds(node) && node.b - node.a > 1) {
      const Node left = node.left(), right = node.right();
      const bool go_left = group.leaf >= 0 ? group.leaf < right.a
                                           : nearest(left) <= nearest(right);
      node = go_left ? left : right;
    }
    // Where points are far apart their own images are nearer.
    if (lattice_.periodic()) {
      const double own = lattice_.supercell(4. * s_.k + 2, more_);
      if (seed_reach_ > 4 * own) {
        seed_reach_ = own;
        cells_ = more_;
      }
    }
    // Too many cells to be worth it where there is a radius.
    if (!cells_.empty() && seed_reach_ > 2 * std::sqrt(s_.radius))
      has_seeds_ = false;
    else
      list_seed_images();
  }

  // Takes a node for the seeds if it serves better than the one before.
  TGE_TARGET bool try_seeds(const Node& node) {
    const double wanted = 4. * s_.k + 2, points = s_.points(node);
    double reach = std::sqrt(double(metric_.diameter(f_.box(node))));
    more_.clear();
    if (points < wanted) {
      if (!lattice_.periodic() && has_seeds_) return false;
      if (lattice_.periodic())
        reach += lattice_.supercell(std::ceil(wanted / points), more_);
      if (has_seeds_ && reach >= seed_reach_) return false;
    }
    seed_ = node;
    seed_reach_ = reach;
    cells_ = more_;
    return has_seeds_ = true;
  }

  TGE_TARGET void list_seed_images() {
    const int64_t dim = metric_.dim();
    seed_images_.clear();
    if (cells_.empty()) return;
    std::vector<int64_t> numbers(dim);
    for (int64_t a = 0; a < dim; ++a) numbers[a] = -((cells_[a] - 1) / 2);
    for (int64_t a = 0; a >= 0;) {
      seed_images_.resize(seed_images_.size() + dim);
      lattice_.translate(numbers.data(),
                         seed_images_.data() + seed_images_.size() - dim);
      for (a = dim - 1; a >= 0 && numbers[a] == cells_[a] / 2; --a)
        numbers[a] = -((cells_[a] - 1) / 2);
      if (a >= 0) ++numbers[a];
    }
  }

  // For each query a distance within which its neighbours are; their maximum.
  TGE_TARGET T bounds(const Group& group) {
    const T radius = static_cast<T>(s_.radius);
    bound_.assign(group.end - group.begin, radius);
    tied_ = false;
    if (!has_seeds_) return radius;
    T widest = -1;
    for (int64_t q = group.begin; q < group.end; ++q) {
      T& bound = bound_[q - group.begin];
      const Limit<T> limit = seed_bound(q);
      if (limit.value <= radius) {
        bound = limit.value;
        tied_ |= !limit.tight;
      }
      widest = std::max(widest, bound);
    }
    return widest;
  }

  TGE_FAST Limit<T> seed_bound(int64_t q) {
    const int64_t begin = f_.first[seed_.a], end = f_.first[seed_.b];
    const int64_t size = seed_images_.size(), dim = metric_.dim();
    const int64_t count = size ? size / dim : 1;
    near_.reserve(count * (end - begin) * kLanes);
    T* to = near_.dist.data();
    for (int64_t i = 0; i < count; ++i) {
      const T* t = size ? &seed_images_[i * dim] : nullptr;
      for (int64_t b = begin; b < end; ++b, to += kLanes)
        metric_.distances(f_.block(b), query(q), t, to);
    }
    return near_.within(to - near_.dist.data(), s_.k + 1,
                        (s_.k + 1) / 8 + 1);
  }

  // The least squared distance from the group's box to a node's.
  TGE_FAST T nearest(const Node& node, const T* t = nullptr) const {
    return metric_.nearest(box_.data(), box_.data() + metric_.dim(),
                           f_.box(node), t);
  }

  // The translations that bring points to within `bound` of the group.
  TGE_TARGET void list_images(const Group& group, T bound) {
    if (!lattice_.periodic()) return;
    const int64_t dim = metric_.dim();
    const Node root = s_.root(group.cloud);
    const T* box = f_.box(root);
    images_.clear();
    lattice_.for_each_near(
        box_.data(), box_.data() + dim, box, box + dim,
        std::sqrt(double(bound)), [&](const int64_t* numbers) {
          add_image(numbers, root, bound);
        });
    if (!lattice_.plain()) images_.sort(dim);
    images_.find_home(dim);
    ties_.forget();
  }

  TGE_TARGET void add_image(const int64_t* numbers, const Node& root,
                            T bound) {
    images_.add(lattice_, metric_.dim(), numbers);
    if (!(nearest(root, images_.last(metric_.dim())) <= bound))
      images_.drop(metric_.dim());
  }

  TGE_FAST const T* translation(int64_t image) const {
    return image == images_.home ? nullptr
                                 : &images_.vector[image * metric_.dim()];
  }

  // The blocks that are within `bound` of the group; false if over `cap`.
  TGE_TARGET bool collect(const Group& group, T bound, int64_t cap) {
    blocks_.block.clear();
    blocks_.image.clear();
    corners_.clear();
    const int64_t images = images_.size(metric_.dim());
    shifted_ = images > 1 || images_.home < 0;
    for (int64_t i = 0; i < images; ++i)
      if (!walk(group, static_cast<int32_t>(i), bound, cap)) return false;
    if (blocks_.block.size() >= INT32_MAX / kLanes) throw std::bad_alloc();
    return true;
  }

  // Goes down level by level, without a branch per node.
  TGE_FAST bool walk(const Group& group, int32_t image, T bound,
                     int64_t cap) {
    const T* t = translation(image);
    nodes_.assign(1, s_.root(group.cloud));
    for (int64_t n = 1, next = 0; n > 0; n = next, next = 0) {
      below_.resize(2 * n);
      for (int64_t i = 0; i < n; ++i) {
        const Node node = nodes_[i];
        const bool near = nearest(node, t) <= bound;
        if (node.b - node.a == 1) {
          if (near) push_leaf(node, image);
          continue;
        }
        below_[next] = node.left();
        below_[next + 1] = node.right();
        next += 2 * near;
      }
      nodes_.swap(below_);
      if (static_cast<int64_t>(blocks_.block.size()) + next / 4 > cap)
        return false;
    }
    return true;
  }

  TGE_FAST void push_leaf(const Node& leaf, int32_t image) {
    for (int64_t b = f_.first[leaf.a]; b < f_.first[leaf.b]; ++b)
      push(b, image, f_.box(leaf));
  }

  // Lists a block and the box of its leaf, `kLanes` boxes side by side.
  TGE_FAST void push(int64_t block, int32_t image, const T* box) {
    const int64_t dim = metric_.dim(), rows = (shifted_ ? 3 : 2) * dim;
    const int64_t lane = blocks_.block.size() % kLanes;
    if (lane == 0)
      corners_.resize(corners_.size() + rows * kLanes,
                      std::numeric_limits<T>::quiet_NaN());
    T* to = corners_.data() + corners_.size() - rows * kLanes + lane;
    for (int64_t i = 0; i < 2 * dim; ++i) to[i * kLanes] = box[i];
    for (int64_t i = 2 * dim; i < rows; ++i)
      to[i * kLanes] = images_.vector[image * dim + i - 2 * dim];
    blocks_.block.push_back(block);
    blocks_.image.push_back(image);
  }

  // Of the group's blocks, those that are within `bound` of one query. Here
  // and below pointers are read once: what is written might be theirs.
  TGE_FAST int64_t select(const T* x, T bound) {
    const int64_t n = blocks_.block.size();
    const int64_t rows = (shifted_ ? 3 : 2) * metric_.dim();
    reach_.resize(n + 2 * kLanes);
    gap_.resize(n + 2 * kLanes);
    const T* corners = corners_.data();
    T* gap = gap_.data();
    Id<T>* reach = reach_.data();
    const bool shifted = shifted_;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i += kLanes) {
      T d[kLanes];
      metric_.gaps(corners + i * rows, x, shifted, d);
      kept += pack(d, bound, i, gap + kept, reach + kept);
    }
    return kept;
  }

  TGE_FAST void answer(int64_t q, const Group& group) {
    const int64_t n = gather(q, bound_[q - group.begin]);
    const int64_t kept = near_.sort(n, s_.k + !s_.loop);
    const int32_t id = static_cast<int32_t>(s_.query_id[q]);
    int32_t* ids = store_.id.take(table_ ? 2 * kept : kept);
    const int64_t m = table_ ? put<true>(kept, id, ids)
                             : put<false>(kept, id, ids);
    lists_.list[id] = {ids, ids + kept, table_};
    lists_.start[id + 1] = std::min(m, s_.k);
  }

  // Writes numbers of points, and of images, but not the query itself.
  template <bool Shifts>
  TGE_FAST int64_t put(int64_t kept, int32_t id, int32_t* ids) const {
    const Id<T>* slots = near_.slot.data();
    const int64_t* blocks = blocks_.block.data();
    const int32_t *images = blocks_.image.data(), *numbers = blocks_.id;
    const int32_t home = static_cast<int32_t>(images_.home);
    const bool loop = s_.loop;
    int64_t m = 0;
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t slot = slots[i];
      const int32_t other =
          numbers[blocks[slot / kLanes] * kLanes + slot % kLanes];
      const int32_t image = images[slot / kLanes];
      ids[m] = other;
      if (Shifts) ids[kept + m] = image;
      m += loop | (other != id) | (image != home);
    }
    return m;
  }

  // Stores the candidates within `bound`; returns how many there are.
  TGE_FAST int64_t gather(int64_t q, T bound) {
    // Duplicates may tie by the thousands: keep k of them at a time.
    const int64_t most = s_.k < kUnlimited ? 4 * s_.k + 4 * kMaxRank
                                           : INT64_MAX / 2;
    const T* x = query(q);
    const int64_t count = select(x, bound);
    near_.reserve(std::min(count * kLanes, most + kLanes) + kLanes);
    T* dist = near_.dist.data();
    Id<T>* slot = near_.slot.data();
    const Id<T>* reach = reach_.data();
    const int64_t* blocks = blocks_.block.data();
    const int32_t* images = blocks_.image.data();
    const T* coords = f_.block(0);
    const T* vectors = images_.vector.data();
    const int64_t dim = metric_.dim(), home = images_.home;
    int64_t n = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (n > most) {
        n = near_.shrink(n, s_.k + 1);
        bound = dist[n - 1];
      }
      const int64_t at = reach[i], image = images[at];
      T d[kLanes];
      metric_.distances(coords + blocks[at] * dim * kLanes, x,
                        image == home ? nullptr : vectors + image * dim, d);
      n += pack(d, bound, at * kLanes, dist + n, slot + n);
    }
    return n;
  }

  // Where results have shifts, the group's are stored once.
  TGE_TARGET void keep_shifts() {
    const int64_t dim = metric_.dim(), images = images_.size(dim);
    table_ = nullptr;
    if (!s_.shifts || images == 0 || (images == 1 && images_.home == 0))
      return;
    int64_t* table = store_.shifts.take(images * dim);
    std::copy(images_.shift.begin(), images_.shift.end(), table);
    table_ = table;
  }

  TGE_TARGET void answer_tied(int64_t q, const Group& group) {
    const int32_t id = static_cast<int32_t>(s_.query_id[q]);
    const auto& found =
        ties_.find(query(q), group.cloud, bound_[q - group.begin]);
    const int64_t kept = found.size();
    int32_t* ids = store_.id.take(table_ ? 2 * kept : kept);
    int64_t m = 0;
    for (const Near<T>& near : found) {
      if (!s_.loop && near.id == id && near.image == images_.home) continue;
      if (m == s_.k) break;
      ids[m] = near.id;
      if (table_) ids[kept + m] = near.image;
      ++m;
    }
    lists_.list[id] = {ids, ids + kept, table_};
    lists_.start[id + 1] = m;
  }

  const Search& s_;
  const Forest<T>& f_;
  Lists& lists_;
  Store& store_;
  Lattice lattice_;
  Images<T> images_;
  Metric<T, D> metric_;
  Blocks<T> blocks_;
  Candidates<T, ByNumber<T>> near_;
  bool has_seeds_ = false;
  bool tied_ = false;     // whether many seeds are as far as the k-th
  bool shifted_ = false;  // whether some image is not at home
  Node seed_{};
  double seed_reach_ = 0;
  const int64_t* table_ = nullptr;
  std::vector<T> box_, bound_, corners_, gap_, seed_images_;
  std::vector<Id<T>> reach_;
  std::vector<int64_t> cells_, more_;
  std::vector<Node> nodes_, below_;
  std::vector<Group> todo_;
  TieSearch<T, D> ties_;
};

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge
