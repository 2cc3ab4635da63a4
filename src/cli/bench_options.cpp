// SPDX-License-Identifier: MIT
// syncbn bench: its command line.
#include <algorithm>
#include <charconv>
#include <memory>
#include <string_view>

#include <CLI/CLI.hpp>

#include "bench.hpp"
#include "bench_comm.hpp"
#include "bench_run.hpp"
#include "choice.hpp"
#include "command.hpp"
#include "failure.hpp"

namespace syncbn::cli {
namespace bench {
namespace {

constexpr const char* kNotes =
    "Every case is verified against plain sums in double before it is timed; exit code 1 if it is wrong.\n"
    "All that a line compares is timed in turn, in one process, on the same buffers. The limit is the time of the\n"
    "same traffic without arithmetic, with the stores that are fastest here: read x, then read x (and the residual)\n"
    "and write y; read x and dy, then read both and write dx; behind a ReLU, read x, dy and y and write the masked\n"
    "gradient, then read that and x and write dx. Under mpirun the global batch is split over the ranks, all begin a\n"
    "repetition together, and the slowest counts; allreduce is the time of the layer's message alone, and overhead\n"
    "what the layer takes longer than a layer of each rank by itself.\n"
    "\n"
    "--comm times the messages instead: what a pass of a tiny batch takes longer over all ranks than on each rank "
    "alone,\n"
    "by exchange, next to one blocking MPI_Allreduce(MPI_SUM) of 2C+1 doubles; how long finish_*() still waits after\n"
    "5 ms of computing; and what a LogGP model with the latencies measured here predicts for 2 to 100,000 ranks. Of "
    "two\n"
    "reductions it takes the first.\n"
    "\n"
    "Try:\n"
    "  syncbn bench --shapes 32x256x56x56,128x256 --layout nchw\n"
    "  syncbn bench --activation relu --residual\n"
    "  mpirun -n 2 syncbn bench --pass forward --json\n"
    "  mpirun -n 2 syncbn bench --comm";

/// "32x64" to {32, 64}; empty if some extent is not a number of at least 1.
std::vector<Index> parse_extents(std::string_view word) {
  std::vector<Index> extents;
  for (bool more = true; more;) {
    const std::size_t cross = word.find('x');
    const std::string_view digits = word.substr(0, cross);
    Index extent = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), extent);
    if (error != std::errc() || end != digits.data() + digits.size() || extent < 1) return {};
    extents.push_back(extent);
    more = cross != std::string_view::npos;
    if (more) word.remove_prefix(cross + 1);
  }
  return extents;
}

bool is_small_enough(const std::vector<Index>& extents) {
  constexpr Index kMostElements = Index{1} << 48;
  Index elements = 1;
  for (const Index extent : extents) {
    if (__builtin_mul_overflow(elements, extent, &elements) || elements >= kMostElements) return false;
  }
  return true;
}

Shape parse_shape(std::string_view word) {
  const std::vector<Index> extents = parse_extents(word);
  if (extents.size() != 2 && extents.size() != 4) {
    throw LocalFailure(kUsage, "'" + std::string(word) + "' is not a shape, wanted NxC or NxCxHxW, each at least 1");
  }
  if (!is_small_enough(extents)) {
    throw LocalFailure(kUsage, "'" + std::string(word) + "' has too many elements, wanted fewer than 2^48");
  }
  return extents.size() == 2 ? Shape{extents[0], extents[1]} : Shape{extents[0], extents[1], extents[2], extents[3]};
}

std::string check_shapes(const std::string& text) {
  try {
    parse_shapes(text);
  } catch (const LocalFailure& failure) {
    return failure.what();
  }
  return "";
}

constexpr Index kMostChannels = Index{1} << 20;

/// "64,512" to {64, 512}. Throws LocalFailure (usage) unless each is between 1 and kMostChannels and given once.
std::vector<Index> parse_channels(std::string_view text) {
  std::vector<Index> all;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    const std::string_view word = text.substr(0, comma);
    const std::vector<Index> extents = parse_extents(word);
    if (extents.size() != 1 || extents[0] > kMostChannels) {
      throw LocalFailure(kUsage, "'" + std::string(word) + "' is not a number of channels, wanted 1 to 2^20");
    }
    if (std::count(all.begin(), all.end(), extents[0]) > 0) {
      throw LocalFailure(kUsage, "'" + std::string(word) + "' is given twice");
    }
    all.push_back(extents[0]);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
  }
  return all;
}

std::string check_channels(const std::string& text) {
  try {
    parse_channels(text);
  } catch (const LocalFailure& failure) {
    return failure.what();
  }
  return "";
}

/// The library has one thread where it was built without OpenMP.
#ifdef _OPENMP
constexpr int kMostThreads = 1024;
#else
constexpr int kMostThreads = 1;
#endif

void add_what(CLI::App& command, Options& options) {
  command
      .add_option_function<std::string>(
          "--shapes", [&options](const std::string& text) { options.shapes = parse_shapes(text); },
          "Global batches, NxCxHxW or NxC; if not given, layers of ResNet-50, small batches and 2-D inputs")
      ->check(CLI::Validator(check_shapes, ""))
      ->type_name("SHAPE,...");
  add_choice<std::vector<Layout>>(command, "--layout", options.layouts, "Where the channel axis is",
                                  {{"nchw", {Layout::channels_first}},
                                   {"nhwc", {Layout::channels_last}},
                                   {"both", {Layout::channels_first, Layout::channels_last}}});
  add_choice<std::vector<Pass>>(
      command, "--pass", options.passes, "What to time",
      {{"forward", {Pass::forward}}, {"backward", {Pass::backward}}, {"both", {Pass::forward, Pass::backward}}});
  add_choice<std::vector<Reduction>>(command, "--reduction", options.reductions, "How sums over samples are formed",
                                     {{"reproducible", {Reduction::reproducible}},
                                      {"fast", {Reduction::fast}},
                                      {"both", {Reduction::reproducible, Reduction::fast}}});
  add_choice<Activation>(command, "--activation", options.fused.activation, "What the layer applies to its result",
                         {{"none", Activation::none}, {"relu", Activation::relu}});
  command.add_flag("--residual", options.fused.residual, "The layer adds a tensor, in front of the activation");
  add_choice<DataType>(
      command, "--dtype", options.dtype, "Element type",
      {{"f32", DataType::f32}, {"f64", DataType::f64}, {"bf16", DataType::bf16}, {"f16", DataType::f16}});
}

/// After add_what() and add_how(): layers that have nearly nothing to do have no shape.
void add_comm(CLI::App& command, Options& options) {
  CLI::Option* comm = command.add_flag("--comm", options.comm, "Time the messages between ranks instead of shapes");
  for (const char* other : {"--shapes", "--layout", "--activation", "--residual", "--spoil"}) {
    comm->excludes(command.get_option(other));
  }
  command
      .add_option_function<std::string>(
          "--channels", [&options](const std::string& text) { options.channels = parse_channels(text); },
          "With --comm: layers of so many")
      ->default_str("64,128,256,512,1024,2048")
      ->check(CLI::Validator(check_channels, ""))
      ->type_name("C,...")
      ->needs(comm);
}

void add_how(CLI::App& command, Options& options) {
  command.add_option("--threads", options.threads, "Threads of each rank")
      ->capture_default_str()
      ->check(CLI::Range(1, kMostThreads).description(""))
      ->type_name("T");
  command
      .add_option("--seconds", options.seconds,
                  "Time for each shape, layout and pass, or number of channels; five rounds at least")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0).description(""))
      ->type_name("S");
  command.add_option("--spoil", options.spoil, "Multiply the results by 1 + REL before verifying, to see it fail")
      ->capture_default_str()
      ->type_name("REL");
  command.add_flag("--json", options.json, "One JSON object per line, nothing else");
}

}  // namespace

std::string text_of(const Shape& shape) {
  std::string text = std::to_string(shape.n) + "x" + std::to_string(shape.c);
  if (shape.positions() > 1) text += "x" + std::to_string(shape.h) + "x" + std::to_string(shape.w);
  return text;
}

std::vector<Shape> parse_shapes(const std::string& text) {
  std::vector<Shape> shapes;
  std::string_view rest = text;
  for (bool more = true; more;) {
    const std::size_t comma = rest.find(',');
    shapes.push_back(parse_shape(rest.substr(0, comma)));
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  return shapes;
}

std::vector<Shape> default_shapes() {
  return {{32, 64, 112, 112}, {32, 256, 56, 56}, {32, 512, 28, 28}, {32, 1024, 14, 14},
          {32, 2048, 7, 7},   {4, 256, 56, 56},  {4, 64, 56, 56},   {2, 256, 14, 14},
          {1024, 1024},       {256, 4096},       {128, 256}};
}

}  // namespace bench

CommandBody add_bench(CLI::App& tool) {
  const auto options = std::make_shared<bench::Options>();
  CLI::App& command = *tool.add_subcommand("bench", "Time the layer, next to what this machine's memory allows");
  bench::add_what(command, *options);
  bench::add_how(command, *options);
  bench::add_comm(command, *options);
  command.footer(bench::kNotes);
  return [options] {
    return options->comm ? bench::run_comm(*options, MPI_COMM_WORLD) : bench::run(*options, MPI_COMM_WORLD);
  };
}

}  // namespace syncbn::cli
