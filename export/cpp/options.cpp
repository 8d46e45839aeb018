#include "options.h"

#include <getopt.h>

#include <charconv>
#include <cstdio>
#include <stdexcept>
#include <string_view>

namespace homomorph {
namespace {

constexpr char kHelp[] = R"(Usage: homomorph-morph REPOSITORY A.png B.png OUT [options]

Morphs picture A into picture B with the model in REPOSITORY, a folder that
`homomorph export` wrote, and writes OUT/frame-000.png, OUT/frame-001.png, ...
OUT must be a new folder or an empty one. A and B must have the same size, and
sides that are multiples of the model's stride.

  --steps S      frames, A and B included (default 9)
  --set GROUP=V  take only this group from B: its strength goes from 0 to V
                 (0 to 2; 1 is as in B). May be given several times; without
                 it, every group goes from 0 to 1
  --threads N    threads for one operation (default: all cores)
  --repeat N     morph N times and print the last one's times: the first is
                 slow, because libtorch prepares itself (default 1)
  --help         print this
)";

template <typename Number>
Number parse_number(std::string_view option, std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::runtime_error(std::string(option) + ": '" + std::string(text) + "' is not a number that it takes");
  }
  return number;
}

int parse_count(std::string_view option, std::string_view text) {
  const int count = parse_number<int>(option, text);
  if (count < 1) throw std::runtime_error(std::string(option) + " must be at least 1, not " + std::string(text));
  return count;
}

void add_slider(std::string_view slider, std::map<std::string, double>& sliders) {
  const size_t equals = slider.find('=');
  if (equals == 0 || equals == std::string_view::npos) {
    throw std::runtime_error("--set '" + std::string(slider) + "' must be GROUP=V, such as glasses=1");
  }
  const std::string group(slider.substr(0, equals));
  if (!sliders.emplace(group, parse_number<double>("--set", slider.substr(equals + 1))).second) {
    throw std::runtime_error("--set names '" + group + "' twice");
  }
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv) {
  static constexpr option kOptions[] = {
      {"steps", required_argument, nullptr, 's'},  {"set", required_argument, nullptr, 'v'},
      {"threads", required_argument, nullptr, 't'}, {"repeat", required_argument, nullptr, 'r'},
      {"help", no_argument, nullptr, 'h'},          {nullptr, 0, nullptr, 0},
  };
  Options options;
  opterr = 0;
  for (int found; (found = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1;) {
    switch (found) {
      case 's': options.steps = parse_count("--steps", optarg); break;
      case 'v': add_slider(optarg, options.sliders); break;
      case 't': options.threads = parse_count("--threads", optarg); break;
      case 'r': options.repeat = parse_count("--repeat", optarg); break;
      case 'h': std::fputs(kHelp, stdout); return std::nullopt;
      default:
        throw std::runtime_error(std::string(argv[optind - 1]) + " is no option, or lacks its value: see --help");
    }
  }
  if (argc - optind != 4) {
    throw std::runtime_error("give REPOSITORY, A.png, B.png and OUT, not " + std::to_string(argc - optind) +
                             " names: see --help");
  }
  options.repository = argv[optind];
  options.source = argv[optind + 1];
  options.target = argv[optind + 2];
  options.out = argv[optind + 3];
  if (!options.out.has_filename()) options.out = options.out.parent_path();  // a slash at the end
  return options;
}

}  // namespace homomorph
