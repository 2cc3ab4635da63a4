// SPDX-License-Identifier: MIT
// syncbn info: what the program runs on. Facts on stdout, warnings on stderr.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <mpi.h>
#include <nlohmann/json.hpp>
#include <sched.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "agree.hpp"
#include "command.hpp"
#include "mpi_session.hpp"
#include "syncbn/version.hpp"

namespace syncbn::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What one rank knows of itself; sent as bytes.
struct RankFacts {
  char host[64];
  int rank_on_host;
  int ranks_on_host;
  int first_on_host;    ///< The lowest rank of its host: hosts may have the same name.
  cpu_set_t core_set;   ///< Logical cores that it may run on; none if there are too many for this type.
  int cores;            ///< How many.
  int cores_of_host;    ///< How many there are at all; a rank that has fewer is bound to them.
  int omp_num_threads;  ///< What OMP_NUM_THREADS says; 0 if that is not set.
  int threads;          ///< What an OpenMP loop takes: without OMP_NUM_THREADS one for each of its cores.
};

/// OpenMP's own answer: OMP_NUM_THREADS may be a list or nonsense, and there are OMP_THREAD_LIMIT and others.
int openmp_threads() {
#ifdef _OPENMP
  return std::min(omp_get_max_threads(), omp_get_thread_limit());
#else
  return 1;
#endif
}

RankFacts own_facts(MPI_Comm comm) {
  RankFacts facts{};
  gethostname(facts.host, sizeof facts.host - 1);
  MPI_Comm on_host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &on_host), "MPI_Comm_split_type");
  facts.rank_on_host = rank_of(on_host);
  facts.ranks_on_host = size_of(on_host);
  facts.first_on_host = rank_of(comm);
  check_mpi(MPI_Bcast(&facts.first_on_host, 1, MPI_INT, 0, on_host), "MPI_Bcast");
  check_mpi(MPI_Comm_free(&on_host), "MPI_Comm_free");
  CPU_ZERO(&facts.core_set);
  if (sched_getaffinity(0, sizeof facts.core_set, &facts.core_set) == 0) facts.cores = CPU_COUNT(&facts.core_set);
  facts.cores_of_host = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const char* threads = std::getenv("OMP_NUM_THREADS");
  facts.omp_num_threads = threads == nullptr ? 0 : std::atoi(threads);
  facts.threads = openmp_threads();
  return facts;
}

bool is_bound(const RankFacts& rank) { return rank.cores > 0 && rank.cores < rank.cores_of_host; }

/// By rank, on rank 0.
std::vector<RankFacts> gather_facts(MPI_Comm comm) {
  const RankFacts mine = own_facts(comm);
  std::vector<RankFacts> all(rank_of(comm) == 0 ? static_cast<std::size_t>(size_of(comm)) : 0);
  check_mpi(MPI_Gather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, 0, comm), "MPI_Gather");
  return all;
}

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  check_mpi(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  const std::string whole(text, static_cast<std::size_t>(length));
  std::string first = whole.substr(0, whole.find_first_of("\n,"));  // the rest is about how it was built
  std::replace(first.begin(), first.end(), '\t', ' ');
  return first;
}

std::string mpi_standard() {
  int major = 0, minor = 0;
  check_mpi(MPI_Get_version(&major, &minor), "MPI_Get_version");
  return std::to_string(major) + "." + std::to_string(minor);
}

const char* thread_level_provided() {
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Query_thread(&provided), "MPI_Query_thread");
  return thread_level_name(provided);
}

std::string compiler() {
#if defined(__clang__)
  return "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
         std::to_string(__clang_patchlevel__);
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

/// Those that matter to kernels, of this rank's processor.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) names.push_back("sse4.2");
  if (__builtin_cpu_supports("avx")) names.push_back("avx");
  if (__builtin_cpu_supports("fma")) names.push_back("fma");
  if (__builtin_cpu_supports("avx2")) names.push_back("avx2");
  if (__builtin_cpu_supports("avx512f")) names.push_back("avx512f");
  if (__builtin_cpu_supports("avx512dq")) names.push_back("avx512dq");
  if (__builtin_cpu_supports("avx512bw")) names.push_back("avx512bw");
  if (__builtin_cpu_supports("avx512vl")) names.push_back("avx512vl");
#elif defined(__aarch64__)
  names.push_back("neon");
#endif
  return names;
}

Json json_of(const std::vector<RankFacts>& ranks) {
  Json json;
  json["version"] = SYNCBN_VERSION;
  json["build_type"] = SYNCBN_BUILD_TYPE;
  json["compiler"] = compiler();
  json["mpi_library"] = mpi_library();
  json["mpi_standard"] = mpi_standard();
  json["thread_level_asked"] = thread_level_name(MpiSession::kThreadLevel);
  json["thread_level_provided"] = thread_level_provided();
  json["instruction_sets"] = instruction_sets();
  json["ranks"] = ranks.size();
  for (const RankFacts& rank : ranks) {
    if (rank.rank_on_host == 0) json["hosts"].push_back({{"name", rank.host}, {"ranks", rank.ranks_on_host}});
  }
  for (const RankFacts& rank : ranks) {
    Json line{{"host", rank.host}, {"cores", rank.cores}, {"bound", is_bound(rank)}, {"omp_num_threads", nullptr}};
    if (rank.omp_num_threads > 0) line["omp_num_threads"] = rank.omp_num_threads;
    line["openmp_threads"] = rank.threads;
    json["per_rank"].push_back(line);
  }
  return json;
}

/// "1 core", "2 cores".
std::string counted(int count, const char* thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

std::string words(const Json& list) {
  std::string text;
  for (const auto& word : list) text += (text.empty() ? "" : " ") + word.get<std::string>();
  return text.empty() ? "none known" : text;
}

void print_text(const Json& json) {
  const auto line = [](const char* name, const std::string& text) { std::cout << name << text << '\n'; };
  const auto text = [&json](const char* key) { return json[key].get<std::string>(); };
  line("syncbn            ", text("version") + ", " + text("build_type") + ", " + text("compiler"));
  line("MPI library       ", text("mpi_library") + ", standard " + text("mpi_standard"));
  line("thread level      ", "asked " + text("thread_level_asked") + ", provided " + text("thread_level_provided"));
  line("instruction sets  ", words(json["instruction_sets"]));
  line("ranks             ", json["ranks"].dump());
  for (const auto& host : json["hosts"]) {
    line("ranks on host     ", host["name"].get<std::string>() + ": " + host["ranks"].dump());
  }
  std::size_t rank = 0;
  for (const auto& facts : json["per_rank"]) {
    const Json& threads = facts["omp_num_threads"];
    const std::string taken = counted(facts["openmp_threads"].get<int>(), "thread");
    line(facts["bound"].get<bool>() ? "bound to          " : "not bound         ",
         "rank " + std::to_string(rank++) + ": " + counted(facts["cores"].get<int>(), "core") + ", OMP_NUM_THREADS " +
             (threads.is_null() ? "not set: " + taken : threads.dump()));
  }
}

/// "OMP_NUM_THREADS=2 or lower"
std::string fewer_threads(int most) {
  return "OMP_NUM_THREADS=" + std::to_string(most) + (most > 1 ? " or lower" : "");
}

/// Ranks that are bound to fewer cores than they have threads. Returns whether there are some on `host`, a first_on_host.
bool warn_of_bound_ranks(const std::vector<RankFacts>& ranks, int host) {
  int count = 0;
  std::size_t first = 0;
  for (std::size_t r = ranks.size(); r-- > 0;) {
    if (ranks[r].first_on_host != host || !is_bound(ranks[r]) || ranks[r].threads <= ranks[r].cores) continue;
    ++count;
    first = r;
  }
  if (count == 0) return false;
  const RankFacts& rank = ranks[first];
  const std::string name = "rank " + std::to_string(first);
  std::cerr << "syncbn info: ";
  if (count == 1) {
    std::cerr << name << " is bound to " << counted(rank.cores, "core") << " but may run "
              << counted(rank.threads, "OpenMP thread");
  } else {
    std::cerr << count << " ranks on " << rank.host << " may run more OpenMP threads than the cores they are bound to ("
              << name << ": " << counted(rank.threads, "OpenMP thread") << " on the " << counted(rank.cores, "core")
              << " it has)";
  }
  std::cerr << "; set " << fewer_threads(rank.cores);
  if (rank.ranks_on_host * rank.threads <= rank.cores_of_host) {
    std::cerr << ", or give each rank more cores (Open MPI: mpirun --map-by ppr:" << rank.ranks_on_host
              << ":node:pe=" << rank.threads << " --bind-to core)";
  }
  std::cerr << '\n';
  return true;
}

/// Ranks of one host that have more threads together than cores.
void warn_of_shared_cores(const std::vector<RankFacts>& ranks, int host) {
  const RankFacts& first = ranks[static_cast<std::size_t>(host)];
  cpu_set_t together;
  CPU_ZERO(&together);
  int threads = 0;
  for (const RankFacts& rank : ranks) {
    if (rank.first_on_host != host) continue;
    if (rank.cores == 0) return;
    CPU_OR(&together, &together, &rank.core_set);
    threads += rank.threads;
  }
  const int cores = CPU_COUNT(&together);
  if (threads <= cores) return;
  const int count = first.ranks_on_host;
  std::cerr << "syncbn info: "
            << (count == 1 ? "rank " + std::to_string(host) : "the " + std::to_string(count) + " ranks") << " on "
            << first.host << " may run " << counted(threads, "OpenMP thread") << " on the " << counted(cores, "core")
            << (count == 1 ? " there" : " that they share");
  if (count > 1 && threads > count) {
    std::cerr << (first.omp_num_threads > 0 ? ", " + std::to_string(first.threads) + " each as OMP_NUM_THREADS says"
                                            : ", one for each core in every rank, as OMP_NUM_THREADS is not set");
  }
  if (count <= cores) {
    std::cerr << "; set " << fewer_threads(cores / count);
  } else {
    std::cerr << "; " << (threads > count ? "set OMP_NUM_THREADS=1 and " : "") << "start fewer ranks, "
              << (cores < first.cores_of_host ? "bind them to other cores, " : "")
              << "or let waiting ones yield (mpi_yield_when_idle in Open MPI)";
  }
  std::cerr << '\n';
}

void warn(const std::vector<RankFacts>& ranks) {
  for (const RankFacts& rank : ranks) {
    if (rank.rank_on_host != 0) continue;
    // A rank that has too few cores of its own is what to mend first.
    if (!warn_of_bound_ranks(ranks, rank.first_on_host)) warn_of_shared_cores(ranks, rank.first_on_host);
  }
}

}  // namespace

CommandBody add_info(CLI::App& tool) {
  const auto as_json = std::make_shared<bool>(false);
  CLI::App& command = *tool.add_subcommand("info", "Show versions, MPI, ranks per host, binding, instruction sets");
  command.add_flag("--json", *as_json, "Print one JSON object");
  command.footer("Try:\n  syncbn info\n  mpirun -n 4 syncbn info --json");
  return [as_json] {
    const std::vector<RankFacts> ranks = gather_facts(MPI_COMM_WORLD);
    if (ranks.empty()) return kOk;
    const Json json = json_of(ranks);
    if (*as_json) {
      std::cout << json.dump(2) << '\n';
    } else {
      print_text(json);
    }
    warn(ranks);
    return kOk;
  };
}

}  // namespace syncbn::cli
