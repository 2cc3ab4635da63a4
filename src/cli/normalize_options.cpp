// SPDX-License-Identifier: MIT
// syncbn normalize: its command line.
#include <cmath>
#include <memory>

#include <CLI/CLI.hpp>

#include "choice.hpp"
#include "command.hpp"
#include "failure.hpp"
#include "normalize.hpp"
#include "shards.hpp"

namespace syncbn::cli {
namespace {

constexpr const char* kNotes =
    "Files are little-endian f2, f4 or f8 in C order. Every rank reads its own rows, so all hosts must see X, Z and\n"
    "DY.npy; rank 0 reads the other files and writes the results, in the order of the input: y, mean, var,\n"
    "running_mean, running_var and, with --grad-output, dx, dgamma, dbeta and, with --residual, dresidual. mean and\n"
    "var are f8 and are what x was normalized with; y, dx and dresidual are of the input's type, the others too, but\n"
    "f4 for an input of f2. With all of it y = relu(gamma*xhat + beta + z), and dy counts where y > 0.\n"
    "--mode local and --group-size write statistics and parameter gradients as (ranks, C), --param-grad local the\n"
    "latter.\n"
    "Nothing is written unless everything went well.\n"
    "\n"
    "Try:\n"
    "  syncbn normalize --input x.npy --out results\n"
    "  mpirun -n 3 syncbn normalize --input x.npy --grad-output dy.npy --shards 5,0,11 --out results";

std::string check_not_empty(const std::string& text) { return text.empty() ? "the name is empty" : ""; }

std::string check_eps(const std::string& text) {
  double value = -1.0;
  const bool is_number = CLI::detail::lexical_cast(text, value);
  return is_number && value >= 0.0 && std::isfinite(value) ? "" : "'" + text + "' is not a finite number >= 0";
}

std::string check_momentum(const std::string& text) {
  if (text == "none") return "";
  double value = -1.0;
  const bool is_number = CLI::detail::lexical_cast(text, value);
  return is_number && value >= 0.0 && value <= 1.0 ? "" : "'" + text + "' is neither a number in [0, 1] nor none";
}

std::string check_shards(const std::string& text) {
  try {
    parse_shards(text);
  } catch (const LocalFailure& failure) {
    return failure.what();
  }
  return "";
}

std::string check_group_size(const std::string& text) {
  int ranks = 0;
  if (text == "node" || (CLI::detail::lexical_cast(text, ranks) && ranks >= 1)) return "";
  return "the group size is '" + text + "', wanted a number of ranks of at least 1, or node";
}

CLI::Option* add_path(CLI::App& command, const std::string& flag, std::string& path, const std::string& help,
                      const std::string& placeholder) {
  return command.add_option(flag, path, help)->check(CLI::Validator(check_not_empty, ""))->type_name(placeholder);
}

void add_files(CLI::App& command, NormalizeOptions& options) {
  add_path(command, "--input", options.input, "x: (N, C), (N, C, *spatial) or, channels-last, (N, *spatial, C)",
           "X.npy")
      ->required();
  add_path(command, "--residual", options.residual, "z, as x: added to the result, in front of the activation",
           "Z.npy");
  add_path(command, "--grad-output", options.grad_output, "dy, as x: run the backward pass, too", "DY.npy");
  add_path(command, "--gamma", options.gamma, "(C), 1 if not given", "G.npy");
  add_path(command, "--beta", options.beta, "(C), 0 if not given", "B.npy");
  add_path(command, "--running-mean", options.running_mean, "(C), 0 if not given", "RM.npy");
  add_path(command, "--running-var", options.running_var, "(C), 1 if not given", "RV.npy");
  add_path(command, "--out", options.out, "Folder of the results, made if needed", "DIR")->required();
}

void add_split(CLI::App& command, NormalizeOptions& options) {
  command.add_option("--shards", options.shards, "Rows of each rank, adding up to N; near-even if not given")
      ->check(CLI::Validator(check_shards, ""))
      ->type_name("N0,N1,...");
  command
      .add_option("--group-size", options.group_size,
                  "Train: K consecutive ranks, or those of a node, share statistics; all ranks if not given")
      ->check(CLI::Validator(check_group_size, ""))
      ->type_name("K|node");
  command.add_option("--threads", options.threads, "Threads of each rank")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("T")
      ->default_str("1");
  add_choice<Layout>(command, "--layout", options.layout, "Where the channel axis is",
                     {{"channels-first", Layout::channels_first}, {"channels-last", Layout::channels_last}});
}

void add_layer(CLI::App& command, NormalizeOptions& options) {
  add_choice<NormalizeMode>(command, "--mode", options.mode,
                            "Statistics of the batch of all ranks; the running ones; of each rank's own rows; the "
                            "running ones, taken as constants in the backward pass",
                            {{"train", NormalizeMode::train},
                             {"eval", NormalizeMode::eval},
                             {"local", NormalizeMode::local},
                             {"frozen", NormalizeMode::frozen}});
  add_choice<Activation>(command, "--activation", options.activation, "What is applied to the result, last",
                         {{"none", Activation::none}, {"relu", Activation::relu}});
  command.add_option("--eps", options.eps, "Added to the variance")
      ->check(CLI::Validator(check_eps, ""))
      ->type_name("E")
      ->default_str("1e-05");
  const auto set_momentum = [&options](const std::string& text) {
    options.momentum.reset();
    double value = 0.0;
    if (CLI::detail::lexical_cast(text, value)) options.momentum = value;
  };
  command
      .add_option_function<std::string>("--momentum", set_momentum,
                                        "Weight of the new batch in the running statistics; none: cumulative average")
      ->check(CLI::Validator(check_momentum, ""))
      ->type_name("M|none")
      ->default_str("0.1");
  command.add_flag("--biased-running-var", options.biased_running_var,
                   "running_var takes the variance divided by M, not by M-1");
  add_choice<Reduction>(command, "--reduction", options.reduction, "How sums over samples are formed",
                        {{"reproducible", Reduction::reproducible}, {"fast", Reduction::fast}});
  add_choice<ParameterGradients>(command, "--param-grad", options.param_grad,
                                 "dgamma and dbeta over the whole batch, or over each rank's rows",
                                 {{"global", ParameterGradients::global}, {"local", ParameterGradients::local}});
}

}  // namespace

CommandBody add_normalize(CLI::App& tool) {
  const auto options = std::make_shared<NormalizeOptions>();
  CLI::App& command = *tool.add_subcommand("normalize", "Run the layer on tensors in .npy files");
  add_files(command, *options);
  add_split(command, *options);
  add_layer(command, *options);
  command.footer(kNotes);
  command.callback([options] {
    if (options->mode != NormalizeMode::train && !options->group_size.empty()) {
      throw CLI::ValidationError("--group-size", "only --mode train shares statistics between ranks");
    }
    if (options->mode == NormalizeMode::eval && !options->grad_output.empty()) {
      throw CLI::ValidationError("--grad-output", "--mode eval has no backward pass, --mode frozen has one");
    }
  });
  return [options] {
    normalize(*options, MPI_COMM_WORLD);
    return kOk;
  };
}

}  // namespace syncbn::cli
