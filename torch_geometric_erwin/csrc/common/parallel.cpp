// Notes forks, from when the library is loaded on: whoever was forked has none
// of the threads that an OpenMP runtime believes it has.
#include "common/parallel.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/export.h"

namespace tge {
namespace {

// Whether this process was forked and has not replaced its program since, as
// it may have been before the library was loaded.
bool began_as_a_fork() {
#if defined(__linux__)
  std::FILE* file = std::fopen("/proc/self/stat", "r");
  if (file == nullptr) return false;
  char text[4096];
  text[std::fread(text, 1, sizeof(text) - 1, file)] = 0;
  std::fclose(file);
  // The name of the program is in parentheses, and may have some itself; its
  // flags are the seventh word after it.
  const char* word = std::strrchr(text, ')');
  for (int i = 0; word && i < 7; ++i) {
    word = std::strchr(word, ' ');
    if (word) ++word;
  }
  constexpr unsigned long kForkedWithoutExec = 0x40;
  return word && (std::strtoul(word, nullptr, 10) & kForkedWithoutExec);
#else
  return false;
#endif
}

struct AtLoad {
  AtLoad() {
    is_forked() = began_as_a_fork();
#if defined(__unix__) || defined(__APPLE__)
    if (pthread_atfork(nullptr, nullptr, [] { is_forked() = true; }) != 0)
      is_forked() = true;
#endif
  }
} at_load;

}  // namespace
}  // namespace tge

// For what only the caller knows of forks.
TGE_EXPORT void tge_leave_openmp() { tge::is_forked() = true; }
