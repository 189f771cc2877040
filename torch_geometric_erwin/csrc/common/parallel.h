// A team of threads for one kernel call.
//
// Its threads are those of torch's OpenMP runtime, if the process has one that
// can be found: they are there already, and after an operation of torch's they
// wait busily for a while, when others would have to share the cores with
// them. Without one, the team starts threads of its own, which end with the
// call. So it does in a forked process, such as a DataLoader worker, which
// would wait forever for threads that only its parent has.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace tge {

// Calls `call(data)` on so many threads: what GNU's compiler makes a parallel
// region of, and LLVM's and Intel's runtimes have as well.
using Parallel = void (*)(void (*call)(void*), void* data,
                          unsigned num_threads, unsigned flags);

// Set when the library is loaded, and by forks from then on (`common/parallel.cpp`).
inline std::atomic<bool>& is_forked() {
  static std::atomic<bool> forked{false};
  return forked;
}

inline Parallel openmp() {
  if (is_forked()) return nullptr;
#if defined(__unix__) || defined(__APPLE__)
  static const auto found =
      reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
#else
  return nullptr;
#endif
}

class Team {
 public:
  // Has fewer threads where the system gives no more. A runtime whose threads
  // are used should always be asked for as many, `pool`, lest it ends some and
  // starts others.
  explicit Team(int num_threads, int pool = 1)
      : size_(num_threads > 1 ? num_threads : 1),
        pool_(pool > size_ ? pool : size_) {
    if (size_ > 1) parallel_ = openmp();
    if (size_ == 1 || parallel_) return;
    try {
      for (int i = 1; i < num_threads; ++i)
        threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
    }
    size_ = static_cast<int>(threads_.size()) + 1;
  }

  ~Team() {
    if (threads_.empty()) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Calls `fn(task, thread)` once for every task in [0, num_tasks), handing
  // tasks to whichever thread is free.
  template <class Fn>
  void for_each(int64_t num_tasks, Fn&& fn) {
    if (size_ == 1 || num_tasks <= 1) {
      for (int64_t i = 0; i < num_tasks; ++i) fn(i, 0);
      return;
    }
    run([&](int thread) {
      for (int64_t i; (i = next_.fetch_add(1)) < num_tasks;) fn(i, thread);
    });
  }

  // Calls `fn(begin, end, chunk)` for at most size() even chunks of [0, n).
  template <class Fn>
  void chunks(int64_t n, int64_t grain, Fn&& fn) {
    const int64_t most = grain > 0 ? (n + grain - 1) / grain : n;
    const int64_t parts = most < size() ? most : size();
    for_each(parts, [&](int64_t i, int) {
      fn(n * i / parts, n * (i + 1) / parts, static_cast<int>(i));
    });
  }

 private:
  struct Job {
    void (*call)(void*, int) = nullptr;
    void* data = nullptr;
  };

  template <class Fn>
  void run(Fn&& fn) {
    next_.store(0);
    Job job;
    job.call = [](void* f, int thread) {
      (*static_cast<std::remove_reference_t<Fn>*>(f))(thread);
    };
    job.data = &fn;
    parallel_ ? run_by_openmp(job) : run_by_own(job);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void run_by_openmp(const Job& job) {
    job_ = job;
    arrived_.store(0);
    parallel_(
        [](void* data) {
          Team& team = *static_cast<Team*>(data);
          const int thread = team.arrived_.fetch_add(1);
          if (thread < team.size_) team.attempt(team.job_, thread);
        },
        this, pool_, 0);
  }

  void run_by_own(const Job& job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = job;
      pending_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    attempt(job_, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }

  // An exception waits until all threads are done, for `run` to throw it.
  void attempt(const Job& job, int thread) {
    try {
      job.call(job.data, thread);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      Job job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return closing_ || generation_ != seen; });
        if (generation_ == seen) return;  // closing
        seen = generation_;
        job = job_;
      }
      attempt(job, thread);
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (--pending_ == 0) done_.notify_one();
      }
    }
  }

  int size_, pool_;
  Parallel parallel_ = nullptr;
  std::atomic<int> arrived_{0};
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  Job job_;
  std::exception_ptr error_;
  uint64_t generation_ = 0;
  int pending_ = 0;
  bool closing_ = false;
};

}  // namespace tge
