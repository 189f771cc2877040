// One query's search where many points tie for the last place, for one
// instruction set; hence no include guard.
//
// Ties go to the smaller id, then to the smaller shift. Nodes are visited in
// the order of (least distance, smallest id, shift), and left out once none of
// their points can win: of a thousand points in one place only the leaves of
// the first few are read.

namespace tge {
namespace neighbors {
namespace TGE_ISA {

template <class T>
struct Near {
  T distance;
  int32_t id, image;

  bool operator<(const Near& other) const {
    if (distance != other.distance) return distance < other.distance;
    return id != other.id ? id < other.id : image < other.image;
  }
};

template <class T, int D>
class TieSearch {
 public:
  TieSearch(const Search& s, const Forest<T>& f, const Metric<T, D>& metric,
            const Images<T>& images)
      : s_(s), f_(f), metric_(metric), images_(images) {}

  // Other images may have other numbers.
  void forget() { cloud_ = -1; }

  // The nearest points of a cloud within `bound`, in order: k, and one more
  // where the query itself is among the points and does not count. `bound`
  // is the radius, or holds as many points.
  TGE_TARGET const std::vector<Near<T>>& find(const T* x, int64_t cloud,
                                              T bound) {
    const int64_t dim = metric_.dim();
    if (cloud == cloud_ && std::equal(x, x + dim, x_.begin())) return found_;
    x_.assign(x, x + dim);
    cloud_ = cloud;
    bound_ = bound;
    found_.clear();
    todo_.clear();
    for (int64_t i = 0; i < images_.size(dim); ++i)
      push(s_.root(cloud), static_cast<int32_t>(i));
    while (!todo_.empty() && wanted(todo_.front().key)) {
      const Entry next = todo_.front();
      std::pop_heap(todo_.begin(), todo_.end());
      todo_.pop_back();
      visit(next.node, next.key.image);
    }
    std::sort_heap(found_.begin(), found_.end());
    return found_;
  }

 private:
  struct Entry {
    Near<T> key;
    Node node;
    bool operator<(const Entry& other) const {
      return other.key < key;
    }
  };

  TGE_FAST const T* translation(int32_t image) const {
    return image == images_.home ? nullptr
                                 : &images_.vector[image * metric_.dim()];
  }

  TGE_FAST bool full() const {
    return static_cast<int64_t>(found_.size()) >= s_.k + !s_.loop;
  }

  TGE_FAST bool wanted(const Near<T>& key) const {
    return full() ? key < found_.front() : key.distance <= bound_;
  }

  TGE_TARGET void push(const Node& node, int32_t image) {
    const T gap = metric_.nearest(x_.data(), x_.data(), f_.box(node),
                                  translation(image));
    const Near<T> key{gap, f_.least[node.index], image};
    if (!wanted(key)) return;
    todo_.push_back({key, node});
    std::push_heap(todo_.begin(), todo_.end());
  }

  TGE_TARGET void visit(const Node& node, int32_t image) {
    if (node.b - node.a > 1) {
      push(node.left(), image);
      push(node.right(), image);
      return;
    }
    for (int64_t b = f_.first[node.a]; b < f_.first[node.b]; ++b) {
      T d[kLanes];
      metric_.distances(f_.block(b), x_.data(), translation(image), d);
      for (int j = 0; j < kLanes; ++j)
        if (d[j] <= bound_) offer({d[j], f_.id[b * kLanes + j], image});
    }
  }

  TGE_TARGET void offer(const Near<T>& near) {
    if (!wanted(near)) return;
    if (full()) {
      std::pop_heap(found_.begin(), found_.end());
      found_.pop_back();
    }
    found_.push_back(near);
    std::push_heap(found_.begin(), found_.end());
  }

  const Search& s_;
  const Forest<T>& f_;
  const Metric<T, D>& metric_;
  const Images<T>& images_;
  T bound_ = 0;
  int64_t cloud_ = -1;
  std::vector<T> x_;
  std::vector<Near<T>> found_;  // the farthest first, until all are found
  std::vector<Entry> todo_;     // the nearest first
};

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge
