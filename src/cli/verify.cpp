// SPDX-License-Identifier: MIT
// syncbn verify: the derivation of batch normalization, its closed form, finite differences and the layer on these
// ranks, held against each other.
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <mpi.h>
#include <nlohmann/json.hpp>

#include "agree.hpp"
#include "choice.hpp"
#include "command.hpp"
#include "derivation.hpp"
#include "rounding_bound.hpp"
#include "train/watched.hpp"
#include "verify_bits.hpp"
#include "verify_cases.hpp"
#include "verify_layer.hpp"

namespace syncbn::cli {
namespace {

constexpr const char* kNotes =
    "Every batch is checked five ways: the chain rule node by node, the closed form, central differences of both the\n"
    "formulas and the layer, and the layer itself in f64 and f32 with the samples spread over the ranks. All bounds "
    "are\n"
    "derived (see src/cli/rounding_bound.hpp): roundings of sums in any order for the data at hand, one rounding to "
    "the\n"
    "layer's type, and for central differences the third derivative times h^2/6.\n"
    "Then three batches are run in one process and split over the ranks in other ways: a line each, with one hash of "
    "all\n"
    "result bytes, which must be the same.\n"
    "Exit code 0 if everything is within its bound and all hashes are the same, 1 if not.\n"
    "\n"
    "Try:\n"
    "  syncbn verify\n"
    "  mpirun -n 4 syncbn verify --cases 20 --seed 7\n"
    "  syncbn verify --spoil-dx 1e-3        # see it fail\n"
    "  mpirun -n 4 syncbn verify --reduction fast    # within its bounds, but with other bits";

struct VerifyOptions {
  std::uint64_t seed = 1;
  int cases = 8;
  double eps = 1e-5;
  double spoil_dx = 0.0;
  Reduction reduction = Reduction::reproducible;
  bool json = false;
};

enum Quantity { kY, kDx, kDgamma, kDbeta };

/// One line of the result: what differs most, measured by its bound.
struct Check {
  std::string batch, what, place;
  double difference = 0.0;
  double bound = 0.0;
  bool is_ok = true;
};

/// The pair of numbers that is nearest to its bound, or beyond it most.
class Comparison {
 public:
  void add(Quantity quantity, Index row, Index column, double got, double want, double bound) {
    const double difference = std::abs(got - want);
    double share = difference <= bound ? difference / bound : std::numeric_limits<double>::infinity();  // NaN: infinity
    if (difference == 0.0) share = 0.0;
    if (std::isfinite(difference) && difference > bound && bound > 0.0) share = difference / bound;
    if (share < worst_[0]) return;
    worst_ = {
        share, difference, bound, static_cast<double>(quantity), static_cast<double>(row), static_cast<double>(column)};
  }

  /// The worst of all ranks. Collective.
  Check agree(const std::string& batch, const std::string& what, MPI_Comm comm) const {
    std::vector<Place> all(static_cast<std::size_t>(size_of(comm)));
    constexpr int kCount = static_cast<int>(std::tuple_size_v<Place>);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgather(worst_.data(), kCount, MPI_DOUBLE, all.data(), kCount, MPI_DOUBLE, comm, &request),
              "MPI_Iallgather");
    train::wait(comm, request, "the worst of all ranks");
    const Place& worst = *std::max_element(all.begin(), all.end());
    return {batch, what, place_text(worst), worst[1], worst[2], worst[0] >= 0.0 && worst[0] <= 1.0};
  }

 private:
  /// Share of the bound, difference, bound, quantity, row, column.
  using Place = std::array<double, 6>;

  static std::string place_text(const Place& place) {
    static constexpr const char* kNames[] = {"y", "dx", "dgamma", "dbeta"};
    const auto quantity = static_cast<Quantity>(place[3]);
    const std::string column = std::to_string(static_cast<Index>(place[5]));
    const std::string row = std::to_string(static_cast<Index>(place[4])) + ",";
    return std::string(kNames[quantity]) + "[" + (quantity <= kDx ? row : "") + column + "]";
  }

  Place worst_ = {-1.0, 0.0, 0.0, 0.0, 0.0, 0.0};  // nothing compared: not ok
};

/// All ways of computing one batch, compared.
class Verification {
 public:
  Verification(VerifyCase batch, const VerifyOptions& options, MPI_Comm comm)
      : batch_(std::move(batch)),
        spoil_dx_(options.spoil_dx),
        comm_(comm),
        nodes_(forward(batch_.x, batch_.parameters)),
        staged_(backward_staged(batch_.x, batch_.dy, nodes_, batch_.parameters)),
        closed_(backward_closed(batch_.dy, nodes_, batch_.parameters)) {
    batch_.reduction = options.reduction;
    for (Index j = 0; j < batch_.x.columns; ++j) {
      bounds_.emplace_back(batch_.x, batch_.dy, nodes_, batch_.parameters, j, size_of(comm));
    }
  }

  const VerifyCase& batch() const { return batch_; }
  const ForwardNodes& nodes() const { return nodes_; }
  const BackwardNodes& staged() const { return staged_; }

  /// Collective. The same on all ranks.
  std::vector<Check> run() const {
    return {check_staged(),
            check_differences("finite differences of the formulas",
                              central_differences(batch_.x, batch_.dy, nodes_, batch_.parameters)),
            check_differences("finite differences of the layer, f64", layer_differences(batch_, nodes_, comm_)),
            check_layer("layer, f64", run_layer<double>(batch_, comm_), kUnitOfF64),
            check_layer("layer, f32", run_layer<float>(batch_, comm_), kUnitOfF32)};
  }

 private:
  const RoundingBound& bound(Index j) const { return bounds_[static_cast<std::size_t>(j)]; }

  /// `bound_of_dx(i, j)` and so on: of what is compared with the closed form, whose own roundings are added here.
  template <class DxBound, class ParameterBound>
  void compare(Comparison& comparison, const Gradients& got, const RowRange& rows, DxBound dx_bound,
               ParameterBound parameter_bound) const {
    for (Index j = 0; j < batch_.x.columns; ++j) {
      const auto feature = static_cast<std::size_t>(j);
      for (Index i = rows.first; i < rows.first + rows.count; ++i) {
        const double want = closed_.dx.at(i, j);
        comparison.add(kDx, i, j, got.dx.at(i, j), want,
                       bound(j).dx(batch_.dy.at(i, j), want, kUnitOfF64) + dx_bound(i, j, want));
      }
      const double dgamma = closed_.dgamma[feature];
      const double dbeta = closed_.dbeta[feature];
      comparison.add(kDgamma, 0, j, got.dgamma[feature], dgamma,
                     bound(j).dgamma(dgamma, kUnitOfF64) + parameter_bound(kDgamma, j, dgamma));
      comparison.add(kDbeta, 0, j, got.dbeta[feature], dbeta,
                     bound(j).dbeta(dbeta, kUnitOfF64) + parameter_bound(kDbeta, j, dbeta));
    }
  }

  /// compare() of something that is computed with the roundings of RoundingBound and a last one of `unit`.
  void compare_computed(Comparison& comparison, const Gradients& got, const RowRange& rows, double unit) const {
    compare(
        comparison, got, rows,
        [&](Index i, Index j, double value) { return bound(j).dx(batch_.dy.at(i, j), value, unit); },
        [&](Quantity quantity, Index j, double value) {
          return quantity == kDgamma ? bound(j).dgamma(value, unit) : bound(j).dbeta(value, unit);
        });
  }

  Check check_staged() const {
    Comparison comparison;
    compare_computed(comparison, staged_.gradients, {0, batch_.x.rows}, kUnitOfF64);
    return comparison.agree(batch_.name, "staged backward", comm_);
  }

  Check check_differences(const std::string& what, const Gradients& slopes) const {
    Comparison comparison;
    compare(
        comparison, slopes, {0, batch_.x.rows},
        [&](Index i, Index j, double) {
          const auto feature = static_cast<std::size_t>(j);
          const double step = difference_step(nodes_.var[feature], batch_.parameters.eps);
          return bound(j).difference_in_x(batch_.x.at(i, j) - nodes_.mean[feature], batch_.dy.at(i, j), step);
        },
        [&](Quantity, Index j, double) { return bound(j).difference_in_parameter(kLinearStep); });
    return comparison.agree(batch_.name, what, comm_);
  }

  Check check_layer(const std::string& what, LayerResult layer, double unit) const {
    for (double& value : layer.gradients.dx.values) value *= 1.0 + spoil_dx_;
    Comparison comparison;
    for (Index j = 0; j < batch_.x.columns; ++j) {
      for (Index i = layer.rows.first; i < layer.rows.first + layer.rows.count; ++i) {
        const double want = nodes_.y.at(i, j);
        comparison.add(kY, i, j, layer.y.at(i, j), want, bound(j).y(want, kUnitOfF64) + bound(j).y(want, unit));
      }
    }
    compare_computed(comparison, layer.gradients, layer.rows, unit);
    return comparison.agree(batch_.name, what, comm_);
  }

  VerifyCase batch_;
  double spoil_dx_;
  MPI_Comm comm_;
  ForwardNodes nodes_;
  BackwardNodes staged_;
  Gradients closed_;
  std::vector<RoundingBound> bounds_;
};

void print_row(const std::string& name, const double* values, Index count) {
  std::printf("  %-10s", name.c_str());
  for (Index j = 0; j < count; ++j) std::printf(" %14.8g", values[j]);
  std::printf("\n");
}

void print_rows(const std::string& name, const Matrix& matrix) {
  for (Index i = 0; i < matrix.rows; ++i) {
    print_row(name + "[" + std::to_string(i) + "]", &matrix.values[static_cast<std::size_t>(i * matrix.columns)],
              matrix.columns);
  }
}

void print_row(const std::string& name, const Features& features) {
  print_row(name, features.data(), static_cast<Index>(features.size()));
}

/// Every node of the worked example, in the order in which the derivation meets them.
void print_nodes(const Verification& example, int ranks) {
  std::printf(
      "Worked example: N = 2 samples, D = 3 features, eps = %g; sample 0 on rank 0, sample 1 on rank %d of %d\n\n",
      example.batch().parameters.eps, ranks - 1, ranks);
  std::printf("  %-10s %14s %14s %14s\n", "node", "feature 0", "feature 1", "feature 2");
  print_rows("x", example.batch().x);
  print_row("gamma", example.batch().parameters.gamma);
  print_row("beta", example.batch().parameters.beta);
  print_row("mean", example.nodes().mean);
  print_row("variance", example.nodes().var);
  print_rows("xhat", example.nodes().xhat);
  print_rows("y", example.nodes().y);
  print_rows("dy", example.batch().dy);
  print_rows("dxhat", example.staged().dxhat);
  print_row("dvar", example.staged().dvar);
  print_row("dmu", example.staged().dmu);
  print_rows("dx", example.staged().gradients.dx);
  print_row("dgamma", example.staged().gradients.dgamma);
  print_row("dbeta", example.staged().gradients.dbeta);
  std::printf("\nTwo samples normalize to -1 and 1 whatever they are, but for eps: so dx is of the size of eps.\n\n");
}

void print_header() {
  std::printf("Against the closed form; the numbers are of the place that comes nearest to its bound\n\n");
  std::printf("  %-36s %-12s %10s %10s  %s\n", "check", "place", "difference", "bound", "verdict");
}

void print_text(const Check& check) {
  std::printf("  %-36s %-12s %10.2e %10.2e  %s\n", check.what.c_str(), check.place.c_str(), check.difference,
              check.bound, check.is_ok ? "ok" : "OFF");
}

void print_json(const Check& check) {
  const nlohmann::ordered_json line{{"batch", check.batch},           {"check", check.what},  {"place", check.place},
                                    {"difference", check.difference}, {"bound", check.bound}, {"ok", check.is_ok}};
  std::cout << line.dump() << '\n';
}

/// Runs and prints one batch; returns how many of its checks are off. Collective.
int verify_batch(const Verification& verification, const VerifyOptions& options, bool speaks) {
  const std::vector<Check> checks = verification.run();
  if (speaks && !options.json) std::printf("%s\n", verification.batch().name.c_str());
  for (const Check& check : checks) {
    if (speaks && options.json) print_json(check);
    if (speaks && !options.json) print_text(check);
  }
  return static_cast<int>(std::count_if(checks.begin(), checks.end(), [](const Check& c) { return !c.is_ok; }));
}

void print_text(const BitsLine& line) {
  std::printf("  %-36s %5d %8d  %016" PRIx64 "  %s\n", line.samples.c_str(), line.ranks, line.threads, line.hash,
              line.is_same ? "same" : "OTHER");
}

void print_json(const BitsLine& line) {
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016" PRIx64, line.hash);
  const nlohmann::ordered_json object{{"check", "same bits"}, {"samples", line.samples},
                                      {"ranks", line.ranks},  {"threads", line.threads},
                                      {"hash", hash},         {"ok", line.is_same}};
  std::cout << object.dump() << '\n';
}

/// Runs and prints the ways to run a batch; returns how many have other bits. Collective.
int verify_bits(const VerifyOptions& options, MPI_Comm comm, bool speaks) {
  const std::vector<BitsLine> lines = run_same_bits(options.seed, options.reduction, comm);
  if (speaks && !options.json) {
    std::printf(
        "\nSame bits: a hash of all bytes of y, dx, mean, var, dgamma, dbeta, running_mean and running_var\n\n");
    std::printf("  %-36s %5s %8s  %-16s  %s\n", "samples", "ranks", "threads", "hash", "verdict");
  }
  for (const BitsLine& line : lines) {
    if (speaks && options.json) print_json(line);
    if (speaks && !options.json) print_text(line);
  }
  return static_cast<int>(std::count_if(lines.begin(), lines.end(), [](const BitsLine& l) { return !l.is_same; }));
}

void print_verdict(const VerifyOptions& options, int off, int other_bits, int ranks) {
  const int batches = options.cases + 1;
  const auto seed = static_cast<unsigned long long>(options.seed);
  if (off == 0) std::printf("\nAll checks of %d batches on %d ranks are within their bounds\n", batches, ranks);
  if (off > 0) std::printf("\n%d checks of %d batches on %d ranks are OFF (seed %llu)\n", off, batches, ranks, seed);
  if (other_bits == 0) std::printf("All ways to run a batch gave the same bits\n");
  if (other_bits > 0) std::printf("%d ways to run a batch gave OTHER bits (seed %llu)\n", other_bits, seed);
}

int run_verify(const VerifyOptions& options) {
  const MPI_Comm comm = MPI_COMM_WORLD;
  const int ranks = size_of(comm);
  const bool speaks = rank_of(comm) == 0;
  const Verification example(worked_example(options.eps, ranks), options, comm);
  if (speaks && !options.json) {
    print_nodes(example, ranks);
    print_header();
  }
  int off = verify_batch(example, options, speaks);
  for (int index = 0; index < options.cases; ++index) {
    off += verify_batch(Verification(random_case(options.seed, index, options.eps, ranks), options, comm), options,
                        speaks);
  }
  const int other_bits = verify_bits(options, comm, speaks);
  if (speaks && !options.json) print_verdict(options, off, other_bits, ranks);
  return off == 0 && other_bits == 0 ? kOk : kCheckFailed;
}

/// The check's own text: CLI11's would print the lower end as 0.000000.
std::string check_eps(const std::string& text) {
  double value = 0.0;
  const bool is_number = CLI::detail::lexical_cast(text, value);
  return is_number && value >= 1e-12 && value <= 1e6 ? "" : "'" + text + "' is not a number from 1e-12 to 1e6";
}

}  // namespace

CommandBody add_verify(CLI::App& tool) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App& command = *tool.add_subcommand("verify", "Check the layer against the derivation, on these ranks");
  command.add_option("--seed", options->seed, "Of the random batches")->capture_default_str()->type_name("N");
  command.add_option("--cases", options->cases, "Random batches beside the worked example")
      ->capture_default_str()
      ->check(CLI::Range(0, 10000).description(""))
      ->type_name("N");
  command.add_option("--eps", options->eps, "Added to the variance")
      ->capture_default_str()
      ->check(CLI::Validator(check_eps, ""))
      ->type_name("EPS");
  command.add_option("--spoil-dx", options->spoil_dx, "Multiply the layer's dx by 1 + REL, to see checks fail")
      ->capture_default_str()
      ->type_name("REL");
  add_choice<Reduction>(command, "--reduction", options->reduction, "How the layer sums over samples",
                        {{"reproducible", Reduction::reproducible}, {"fast", Reduction::fast}});
  command.add_flag("--json", options->json, "One JSON object per check and line, nothing else");
  command.footer(kNotes);
  return [options] { return run_verify(*options); };
}

}  // namespace syncbn::cli
