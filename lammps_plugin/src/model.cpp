// SPDX-License-Identifier: GPL-2.0-only
#include "model.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "operators.h"
#include "scratch.h"

namespace mlip {
namespace {

using Metadata = std::unordered_map<std::string, std::string>;

constexpr const char *kFormat = "polyad-lammps", *kFormatVersion = "1", *kModelName = "model";

[[noreturn]] void refuse(const std::string &path, const std::string &why) {
  throw std::runtime_error(path + " " + why);
}

std::string get(const Metadata &metadata, const std::string &path, const char *key) {
  const auto found = metadata.find(key);
  if (found == metadata.end())
    refuse(path, std::string("says nothing of its `") + key + "`; export the model again");
  return found->second;
}

std::vector<std::string> words(const std::string &text) {
  std::istringstream stream(text);
  std::vector<std::string> result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

// "2.13.0+cpu" -> "2.13.0"
std::string plain_version(const std::string &version) { return version.substr(0, version.find('+')); }

bool runs_here(const std::string &instructions) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (instructions == "x86-64") return true;
  if (instructions == "x86-64-v3") return v3;
  return instructions == "x86-64-v4" && v4;
#elif defined(__aarch64__)
  return instructions == "aarch64";
#else
  return false;
#endif
}

Metadata read_metadata(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  char magic[2] = {0, 0};
  if (!file) refuse(path, "cannot be opened: there is no such file, or it may not be read");
  file.read(magic, 2);
  if (magic[0] != 'P' || magic[1] != 'K')
    refuse(path, "is no exported model; write one with: mlip export --format lammps --model MODEL --out FILE.pt2");
  file.close();
  Metadata metadata;
  try {
    metadata = torch::inductor::AOTIModelPackageLoader::load_metadata_from_package(path, kModelName);
  } catch (const std::exception &) {
    refuse(path, "is damaged, or was not written by `mlip export --format lammps`");
  }
  const auto format = metadata.find("format");
  if (format == metadata.end() || format->second != kFormat)
    refuse(path, "was not written by `mlip export --format lammps`");
  return metadata;
}

void check(const Metadata &metadata, const std::string &path) {
  const std::string again = "; export the model again with the polyad of this machine";
  const std::string format = get(metadata, path, "format_version"), torch = get(metadata, path, "torch_version");
  const std::string device = get(metadata, path, "device"), isa = get(metadata, path, "instructions");
  if (format != kFormatVersion)
    refuse(path, "has format version " + format + ", this pair style reads " + kFormatVersion + again);
  if (plain_version(torch) != plain_version(TORCH_VERSION))
    refuse(path, "was exported with torch " + torch + ", but this pair style was built with torch " +
                     TORCH_VERSION + again);
  if (device != "cpu") refuse(path, "is for the device " + device + ", but this pair style runs on the cpu");
  if (!runs_here(isa))
    refuse(path, "was compiled for processors with " + isa + ", which this one is not; export it with --portable");
}

}  // namespace

struct Model::Implementation {
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader;
  double cutoff = 0;
  at::ScalarType type = at::kDouble;
  std::vector<std::string> symbols;
  std::vector<int64_t> numbers;
};

Model::Model(const std::string &path) : self(std::make_unique<Implementation>()) {
  const Metadata metadata = read_metadata(path);
  check(metadata, path);
  self->cutoff = std::stod(get(metadata, path, "cutoff"));
  self->type = get(metadata, path, "dtype") == "float32" ? at::kFloat : at::kDouble;
  self->symbols = words(get(metadata, path, "symbols"));
  for (const std::string &word : words(get(metadata, path, "atomic_numbers"))) self->numbers.push_back(std::stoll(word));
  register_operators();
  try {
    // What is unpacked for loading is deleted as soon as it is loaded.
    const Scratch scratch;
    self->loader = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path, kModelName, true);
  } catch (const c10::Error &error) {
    refuse(path, std::string("cannot be loaded: ") + error.what_without_backtrace());
  }
}

Model::~Model() = default;

double Model::cutoff() const { return self->cutoff; }
const std::vector<std::string> &Model::symbols() const { return self->symbols; }

int64_t Model::atomic_number(const std::string &symbol) const {
  for (size_t i = 0; i < self->symbols.size(); i++)
    if (self->symbols[i] == symbol) return self->numbers[i];
  return 0;
}

namespace {

// Threads of torch, put back at the end: others in this process have their own idea of them.
class Threads {
 public:
  explicit Threads(int wanted) : before(at::get_num_threads()) { set(wanted); }
  ~Threads() { set(before); }

 private:
  static void set(int count) {
    if (at::get_num_threads() != count) at::set_num_threads(count);
  }
  int before;
};

template <class T>
at::Tensor view(const std::vector<T> &values, at::IntArrayRef shape, at::ScalarType type) {
  return at::from_blob(const_cast<T *>(values.data()), shape, at::TensorOptions().dtype(type));
}

void copy_to(const at::Tensor &tensor, std::vector<double> &target) {
  const at::Tensor dense = tensor.to(at::kDouble).contiguous();
  target.assign(dense.data_ptr<double>(), dense.data_ptr<double>() + dense.numel());
}

}  // namespace

void Model::evaluate(const Graph &graph, Halo &halo, int threads, Result &result) const {
  const c10::InferenceMode inference;
  const Threads limit(threads);
  const Evaluation evaluation(halo, threads);
  const int64_t edges = int64_t(graph.senders.size());
  try {
    const at::Tensor numbers = view(graph.numbers, {graph.total}, at::kLong);
    const std::vector<at::Tensor> outputs = self->loader->run(
        {numbers, numbers.narrow(0, 0, graph.owned), view(graph.senders, {edges}, at::kLong),
         view(graph.receivers, {edges}, at::kLong), view(graph.vectors, {edges, 3}, at::kDouble).to(self->type)});
    copy_to(outputs.at(0), result.energies);
    copy_to(outputs.at(1), result.gradient);
    result.kernel_seconds = evaluation.kernel_seconds();
  } catch (const c10::Error &error) {
    throw std::runtime_error(std::string("the model failed: ") + error.what_without_backtrace());
  }
}

}  // namespace mlip
