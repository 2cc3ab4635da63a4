// SPDX-License-Identifier: MIT
// syncbn report: the page of a run, from its folder.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "command.hpp"
#include "failure.hpp"
#include "train/errors.hpp"
#include "train/report_page.hpp"
#include "train/run_folder.hpp"

namespace syncbn::cli {

namespace {

struct Arguments {
  std::string folder;
  std::string out;
};

int run_report(const Arguments& arguments) {
  if (arguments.folder.empty()) throw LocalFailure(kUsage, "DIR is empty, wanted the folder of a run");
  try {
    const std::filesystem::path folder = arguments.folder;
    const std::filesystem::path page =
        arguments.out.empty() ? folder / "report.html" : std::filesystem::path(arguments.out);
    const train::RunRecord run = train::load_run(folder);
    const std::string html = train::report_html(run);
    train::write_whole(page, html);
    const train::Verdict verdict = train::verdict_of(run, train::figures_of(run));
    if (!verdict.unfinished.empty()) std::printf("%s\n", verdict.unfinished.c_str());
    std::printf("%s\nwritten  %s\n", verdict.headline.c_str(), page.c_str());
  } catch (const train::DataError& error) {
    throw LocalFailure(kBadData, error.what());
  }
  return kOk;
}

}  // namespace

CommandBody add_report(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand("report", "Makes report.html from the folder of a run, complete or not");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folder, "A folder with run.json and metrics.jsonl, of compare or train")
      ->required();
  command->add_option("--out", arguments->out, "The page (default: report.html in DIR)")->type_name("FILE");
  command->footer("Try:\n  mpirun -n 4 syncbn compare --out run\n  syncbn report run");
  return [arguments] { return run_report(*arguments); };
}

}  // namespace syncbn::cli
