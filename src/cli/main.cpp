// SPDX-License-Identifier: MIT
// The syncbn program: reads the command line, runs the subcommand on all ranks, turns failures into exit codes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include <CLI/CLI.hpp>
#include <mpi.h>

#include "agree.hpp"
#include "command.hpp"
#include "mpi_session.hpp"
#include "syncbn/communicator.hpp"
#include "syncbn/version.hpp"
#include "train/watched.hpp"
#include "usage.hpp"

namespace syncbn::cli {
namespace {

constexpr const char* kExamples =
    "Exit codes, the same on all ranks: 0 ok, 1 a check failed, 2 usage, 3 bad or missing data, 4 MPI or environment.\n"
    "\n"
    "Try:\n"
    "  syncbn verify\n"
    "  mpirun -n 2 syncbn compare --epochs 2 --out compare-out";

/// One line on stderr. Control characters, which may come from a file or its name, become '?'.
void say(const std::string& subcommand, std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  std::fprintf(stderr, "syncbn%s%s: %s\n", subcommand.empty() ? "" : " ", subcommand.c_str(), text.c_str());
}

/// Flushes what the subcommand printed; a full disk behind stdout is a failure, too.
void flush_stdout() {
  if (!std::cout.flush() || std::fflush(stdout) != 0) throw LocalFailure(kBadData, "could not write to stdout");
}

/// An exception that other ranks may not share: they could be waiting for this one, so the job ends here.
[[noreturn]] void abort_job(const std::string& subcommand, const char* text) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::fprintf(stderr, "[rank %d] ", rank);
  say(subcommand, text);
  MPI_Abort(MPI_COMM_WORLD, kEnvironment);
  std::abort();
}

/// A rank is missing, so MPI_Finalize would wait for ever. All the others know it and say the same: the lowest of them speaks,
/// and its abort ends the rest.
[[noreturn]] void abort_without_missing_rank(const std::string& subcommand, const char* text) {
  const int turn = std::min(rank_of(MPI_COMM_WORLD), 10);
  std::this_thread::sleep_for(std::chrono::milliseconds(50 * turn));
  say(subcommand, text);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));  // for the launcher to read it
  MPI_Abort(MPI_COMM_WORLD, kEnvironment);
  std::abort();
}

/// While it lives, the program's own messages have the deadline that the layers have.
class WatchedWorld {
 public:
  WatchedWorld() { train::watch_over(MPI_COMM_WORLD, Communicator(MPI_COMM_WORLD)); }
  ~WatchedWorld() { train::watch_no_more(MPI_COMM_WORLD); }
  WatchedWorld(const WatchedWorld&) = delete;
  WatchedWorld& operator=(const WatchedWorld&) = delete;
};

/// Runs `body` on all ranks after they agreed that the command line is good. Returns the same code on all ranks.
int run(const std::string& subcommand, const std::optional<Failure>& usage, const CommandBody& body) {
  const bool speaks = rank_of(MPI_COMM_WORLD) == 0;
  try {
    const WatchedWorld watched;
    try {
      agree(MPI_COMM_WORLD, usage);
      const int code = body();
      together(MPI_COMM_WORLD, flush_stdout);
      return code;
    } catch (const AgreedFailure& failure) {
      // Caught while the watch lives: if the exception ended it, ranks that are still reading the failure would hear of a rank
      // that has left.
      if (speaks) say(subcommand, failure.what());
      return failure.code();
    }
  } catch (const MpiError& error) {
    abort_job(subcommand, error.what());
  } catch (const TimeoutError& error) {
    abort_without_missing_rank(subcommand, error.what());
  } catch (const Error& error) {
    if (speaks) say(subcommand, error.what());
    return exit_code_of(error.code());
  } catch (const std::exception& error) {
    abort_job(subcommand, error.what());
  }
}

int answer_without_mpi(const CLI::App& tool, const CLI::Success& request) {
  if (launched_as().rank != 0) return kOk;
  tool.exit(request, std::cout, std::cerr);
  try {
    flush_stdout();
  } catch (const LocalFailure& failure) {
    say("", failure.what());
    return failure.code();
  }
  return kOk;
}

/// For a subcommand without MPI: under a launcher the first process alone does it, and its code is the launcher's. (If others
/// failed, too, the launcher might end the first before it has said why.)
int run_without_mpi(const std::string& subcommand, const CommandBody& body) {
  if (launched_as().rank != 0) return kOk;
  try {
    const int code = body();
    flush_stdout();
    return code;
  } catch (const LocalFailure& failure) {
    say(subcommand, failure.what());
    return failure.code();
  } catch (const std::exception& error) {
    say(subcommand, error.what());
    return kEnvironment;
  }
}

int main_of_tool(int argc, char** argv) {
  CLI::App tool("Synchronized batch normalization: split a batch over any number of processes, normalize as one.",
                "syncbn");
  tool.set_version_flag("--version", "syncbn " SYNCBN_VERSION);
  tool.set_help_flag("--help,-h", "Print this help and exit");
  tool.require_subcommand(1);
  tool.footer(kExamples);
  const std::map<std::string, CommandBody> bodies{{"bench", add_bench(tool)}, {"compare", add_compare(tool)},
                                                  {"info", add_info(tool)},   {"normalize", add_normalize(tool)},
                                                  {"train", add_train(tool)}, {"verify", add_verify(tool)}};
  const std::map<std::string, CommandBody> bodies_without_mpi{{"report", add_report(tool)}};

  std::optional<Failure> usage;
  try {
    tool.parse(argc, argv);
  } catch (const CLI::Success& request) {
    return answer_without_mpi(tool, request);
  } catch (const CLI::ParseError& error) {
    usage = usage_failure(tool, error);
  }
  const std::string subcommand = chosen_subcommand(tool);
  if (usage) usage->text += " (see syncbn" + (subcommand.empty() ? "" : " " + subcommand) + " --help)";

  // Under mpirun a wrong command line is answered after MPI_Init, too: a launcher that sees the first rank exit with an
  // error kills the others, which may be rank 0 on its way to say what is wrong.
  if (usage && launched_as().size <= 1) {
    say(subcommand, usage->text);
    return usage->code;
  }
  if (const auto body = bodies_without_mpi.find(subcommand); !usage && body != bodies_without_mpi.end()) {
    return run_without_mpi(subcommand, body->second);
  }
  try {
    const MpiSession session(&argc, &argv);
    return run(subcommand, usage, usage ? CommandBody() : bodies.at(subcommand));
  } catch (const LocalFailure& failure) {
    say(subcommand, failure.what());
    return failure.code();
  }
}

}  // namespace
}  // namespace syncbn::cli

int main(int argc, char** argv) { return syncbn::cli::main_of_tool(argc, argv); }
