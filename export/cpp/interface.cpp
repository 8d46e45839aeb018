#include "interface.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace homomorph {
namespace {

// The parameters of a model's configuration.
class Parameters {
 public:
  explicit Parameters(const std::filesystem::path& path) : path_(path) {
    std::ifstream file(path);
    if (!file) {
      throw std::runtime_error("there is no " + path.string() + ": give a folder that `homomorph export` wrote");
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    // Skips values with escaped characters. Our exports write none.
    static const std::regex parameter(R"re(key:\s*"(\w+)"\s*value\s*\{\s*string_value:\s*"([^"\\]*)")re");
    for (std::sregex_iterator match(text.begin(), text.end(), parameter), end; match != end; ++match) {
      values_[(*match)[1]] = (*match)[2];
    }
  }

  const std::string& text(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) fail(name);
    return found->second;
  }

  template <typename Number>
  Number number(const std::string& name) const {
    const std::string& value = text(name);
    Number number{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || !(number > 0)) fail(name);
    return number;
  }

 private:
  [[noreturn]] void fail(const std::string& name) const {
    throw std::runtime_error(path_.string() + " has no usable parameter " + name + ": export the model again");
  }

  std::filesystem::path path_;
  std::map<std::string, std::string> values_;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::string describe(const Picture& picture) {
  return std::to_string(picture.width) + "x" + std::to_string(picture.height);
}

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

}  // namespace

Strengths Interface::ramp(const std::map<std::string, double>& ends, int64_t steps) const {
  require(steps >= 2 && steps <= max_steps, "steps must be from 2 to ", max_steps, ", not ", steps);
  const int64_t count = static_cast<int64_t>(groups.size());
  std::vector<double> column_ends(count, ends.empty() ? 1 : 0);
  for (const auto& [name, end] : ends) {
    const auto group = std::find(groups.begin(), groups.end(), name);
    if (group == groups.end()) {
      std::string known;
      for (const std::string& other : groups) known += (known.empty() ? "" : ", ") + other;
      throw std::runtime_error("there is no group '" + name + "': the model has " + known);
    }
    // This form of the comparison also refuses NaN.
    require(end >= 0 && end <= max_strength, "the strength of ", name, " must be from 0 to ", max_strength, ", not ",
            end);
    column_ends[group - groups.begin()] = end;
  }
  Strengths strengths{steps, count, {}};
  for (int64_t step = 0; step < steps; ++step) {
    // Rounded as the Python client does, so that both send the same numbers.
    const float part = step == steps - 1 ? 1 : static_cast<float>(step * (1.0 / (steps - 1)));
    for (const double end : column_ends) strengths.values.push_back(static_cast<float>(end) * part);
  }
  return strengths;
}

void Interface::check(const Picture& source, const Picture& target, int64_t steps) const {
  const int64_t height = source.height, width = source.width;
  require(target.height == height && target.width == width, "the pictures are of ", describe(source), " and ",
          describe(target), " pixels: scale or crop them to the same size");
  require(height % stride == 0 && width % stride == 0 && std::max(height, width) <= max_picture_size,
          "pictures of ", describe(source), " pixels do not fit: scale or crop them, so that both sides are multiples ",
          "of ", stride, " up to ", max_picture_size, " (the model was trained at ", picture_size, "x", picture_size,
          ")");
  require(steps <= max_pixels / (height * width), steps, " frames of ", describe(source), " pixels are more than ",
          max_pixels, " pixels: ask for fewer, or scale the pictures down");
}

Interface read_interface(const std::filesystem::path& repository) {
  const Parameters parameters(repository / "morph" / "config.pbtxt");
  return {
      .groups = split(parameters.text("groups"), ','),
      .picture_size = parameters.number<int64_t>("picture_size"),
      .stride = parameters.number<int64_t>("stride"),
      .max_picture_size = parameters.number<int64_t>("max_picture_size"),
      .max_steps = parameters.number<int64_t>("max_steps"),
      .max_pixels = parameters.number<int64_t>("max_pixels"),
      .max_strength = parameters.number<double>("max_strength"),
  };
}

}  // namespace homomorph
