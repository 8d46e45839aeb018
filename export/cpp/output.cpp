#include "output.h"

#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <stdexcept>

#include "png.h"

namespace homomorph {
namespace {

// A temporary folder beside the final one, so that a rename moves it. The destructor removes it if it was not renamed.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& beside) {
    std::ostringstream name;
    name << "." << beside.filename().string() << "." << getpid() << ".partial";
    path_ = beside.parent_path() / name.str();
    std::filesystem::create_directories(path_);
  }

  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

void check_output(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder) &&
      !(std::filesystem::is_directory(folder) && std::filesystem::is_empty(folder))) {
    throw std::runtime_error(folder.string() + " is there already: give a new or an empty folder");
  }
  std::filesystem::path parent = std::filesystem::absolute(folder).parent_path();
  while (!std::filesystem::exists(parent)) parent = parent.parent_path();
  if (!std::filesystem::is_directory(parent) || access(parent.c_str(), W_OK) != 0) {
    throw std::runtime_error(folder.string() + " cannot be written: " + parent.string() +
                             " is not a folder that can be written to");
  }
}

void write_frames(const std::filesystem::path& folder, const std::vector<Picture>& frames) {
  const TemporaryFolder partial(folder);
  for (size_t index = 0; index < frames.size(); ++index) {
    char name[32];
    std::snprintf(name, sizeof name, "frame-%03zu.png", index);
    write_png(partial.path() / name, frames[index]);
  }
  std::filesystem::rename(partial.path(), folder);
}

}  // namespace homomorph
