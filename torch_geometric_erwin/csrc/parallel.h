// A team of threads that lives as long as one kernel call.
//
// No pool survives the call, so a forked DataLoader worker can never wait for
// threads that only its parent had.
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

namespace tge {

class Team {
 public:
  // Has fewer threads where the system gives no more.
  explicit Team(int num_threads) {
    try {
      for (int i = 1; i < num_threads; ++i)
        threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
    }
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls `fn(task, thread)` once for every task in [0, num_tasks), handing
  // tasks to whichever thread is free.
  template <class Fn>
  void for_each(int64_t num_tasks, Fn&& fn) {
    if (threads_.empty() || num_tasks <= 1) {
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
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_.call = [](void* f, int thread) {
        (*static_cast<std::remove_reference_t<Fn>*>(f))(thread);
      };
      job_.data = &fn;
      next_.store(0);
      pending_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    attempt(job_, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
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
