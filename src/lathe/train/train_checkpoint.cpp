#include "lathe/train/train_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/formats/checkpoint.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kTemporary = ".checkpoint-";
constexpr std::string_view kStateFile = "training_state.json";
constexpr std::string_view kArraysFile = "training_state.safetensors";
constexpr std::string_view kFirst = "first_moment.";
constexpr std::string_view kSecond = "second_moment.";
constexpr std::string_view kMaster = "master.";
constexpr std::string_view kMtpProjection = "eh_proj.weight";  // of a multi-token prediction layer alone
constexpr int64_t kVersion = 1;

Status sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return {};
  const bool good = ::fsync(fd) == 0 || errno == EINVAL;
  const int code = errno;
  ::close(fd);
  if (good) return {};
  return Error{Errc::kIo, str(folder, ": cannot sync the folder: ", std::generic_category().message(code))};
}

// Removes the folder it names unless told that it is wanted.
class Scratch {
 public:
  explicit Scratch(fs::path path) : path_(std::move(path)) {}

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  ~Scratch() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }

  void keep() { path_.clear(); }

 private:
  fs::path path_;
};

StoredTensor tensor_of(std::string name, const Parameter& parameter, std::span<const float> all) {
  const std::span<const float> values =
      all.subspan(static_cast<size_t>(parameter.offset), static_cast<size_t>(parameter.size));
  return {.name = std::move(name), .dtype = DType::kF32, .shape = parameter.shape, .bytes = std::as_bytes(values)};
}

// A parameter that is stored once more under another name.
struct Copy {
  std::string name;
  int64_t of = 0;  // place in ParameterSet::list()
};

// Checkpoints of V3 have the embedding and the head in the multi-token prediction layer again.
std::vector<Copy> mtp_copies(const ParameterSet& parameters) {
  const auto layer = std::ranges::find_if(
      parameters.list(), [](const Parameter& parameter) { return parameter.name.ends_with(kMtpProjection); });
  if (layer == parameters.list().end()) return {};
  const std::string prefix = layer->name.substr(0, layer->name.size() - kMtpProjection.size());
  const int64_t embedding = parameters.find("model.embed_tokens.weight");
  const int64_t head = parameters.find("lm_head.weight");
  return {{str(prefix, "embed_tokens.weight"), embedding},
          {str(prefix, "shared_head.head.weight"), head < 0 ? embedding : head}};
}

Status write_model(const fs::path& path, const ParameterSet& parameters, std::string_view dtype) {
  std::vector<StoredTensor> tensors;
  std::vector<uint16_t> halves;
  if (dtype == "bf16") {
    halves.resize(parameters.values().size());
    std::ranges::transform(parameters.values(), halves.begin(), [](float value) { return float_to_bf16(value); });
  }
  const auto add = [&](const std::string& name, const Parameter& parameter) {
    tensors.push_back(tensor_of(name, parameter, parameters.values()));
    if (halves.empty()) return;
    tensors.back().dtype = DType::kBF16;
    tensors.back().bytes = std::as_bytes(
        std::span(halves).subspan(static_cast<size_t>(parameter.offset), static_cast<size_t>(parameter.size)));
  };
  for (const Parameter& parameter : parameters.list()) add(parameter.name, parameter);
  for (const Copy& copy : mtp_copies(parameters)) add(copy.name, parameters.list()[static_cast<size_t>(copy.of)]);
  return write_safetensors(path, tensors);
}

Status write_arrays(const fs::path& path, const ParameterSet& parameters, AdamW& optimizer, std::string_view dtype) {
  std::vector<StoredTensor> tensors;
  for (const Parameter& parameter : parameters.list()) {
    tensors.push_back(tensor_of(str(kFirst, parameter.name), parameter, optimizer.first_moments()));
    tensors.push_back(tensor_of(str(kSecond, parameter.name), parameter, optimizer.second_moments()));
    if (dtype != "f32") tensors.push_back(tensor_of(str(kMaster, parameter.name), parameter, parameters.values()));
  }
  return write_safetensors(path, tensors);
}

Json state_json(const RunState& state, int64_t optimizer_steps) {
  Json out = Json::object();
  out.set("version", kVersion);
  out.set("step", state.step);
  out.set("tokens", state.tokens);
  out.set("optimizer_steps", optimizer_steps);
  out.set("loader", state.loader);
  out.set("guard", state.guard);
  out.set("corpus", state.corpus);
  out.set("recent_losses", Json::list(state.recent_losses));
  out.set("valid_loss", state.has_valid_loss ? Json(state.valid_loss) : Json());
  out.set("recipe", state.recipe);
  return out;
}

// Those of the files that are there.
Status copy_files(const fs::path& from, const fs::path& to, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    std::error_code ignored;
    if (!fs::exists(from / name, ignored)) continue;
    LATHE_TRY(const std::string text, read_file(from / name));
    LATHE_TRY(write_file_atomically(to / name, text));
  }
  return {};
}

// The step in a folder's name, -1 for other names.
int64_t step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  int64_t step = -1;
  if (!name.starts_with(kPrefix) || !parse_int(std::string_view(name).substr(kPrefix.size()), step)) return -1;
  return step;
}

std::vector<std::pair<int64_t, fs::path>> checkpoints_in(const fs::path& output) {
  std::vector<std::pair<int64_t, fs::path>> out;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(output, error)) {
    const int64_t step = step_of(entry.path());
    std::error_code ignored;
    if (step >= 0 && fs::exists(entry.path() / kStateFile, ignored)) out.emplace_back(step, entry.path());
  }
  std::ranges::sort(out);
  return out;
}

Status copy_array(const Checkpoint& from, const std::string& name, const Parameter& parameter, std::span<float> all) {
  const StoredTensor* tensor = from.find(name);
  if (tensor == nullptr || tensor->dtype != DType::kF32 || tensor->shape != parameter.shape) {
    return Error{Errc::kInvalidData,
                 str(from.folder(),
                     ": ",
                     name,
                     ": expected an F32 tensor of shape ",
                     parameter.shape,
                     ", found ",
                     tensor == nullptr ? std::string("none") : str(dtype_name(tensor->dtype), ' ', tensor->shape))};
  }
  if (parameter.size > 0) std::memcpy(all.data() + parameter.offset, tensor->bytes.data(), tensor->bytes.size());
  return {};
}

Result<Checkpoint> open_arrays(const fs::path& path) {
  LATHE_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  auto owner = std::make_shared<SafetensorsFile>(std::move(file));
  std::vector<StoredTensor> tensors = owner->tensors();
  return Checkpoint::in_memory(path, std::move(tensors), owner);
}

}  // namespace

Result<fs::path> save_checkpoint(const fs::path& output,
                                 const CheckpointFiles& files,
                                 const RunState& state,
                                 const ParameterSet& parameters,
                                 AdamW& optimizer) {
  const fs::path path = output / str(kPrefix, state.step);
  std::string pattern = (output / str(kTemporary, state.step, ".XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    const Errc kind = errno == ENOSPC || errno == EDQUOT ? Errc::kResourceExhausted : Errc::kIo;
    return Error{kind, str(path, ": cannot make a folder beside it: ", std::generic_category().message(errno))};
  }
  Scratch scratch{fs::path(pattern)};
  std::error_code error;
  fs::permissions(scratch.path(), fs::perms(0755), error);
  LATHE_TRY(write_model(scratch.path() / "model.safetensors", parameters, files.dtype));
  LATHE_TRY(write_arrays(scratch.path() / kArraysFile, parameters, optimizer, files.dtype));
  LATHE_TRY(write_file_atomically(scratch.path() / "config.json", files.config.dump(2) + "\n"));
  LATHE_TRY(copy_files(
      files.tokenizer_folder, scratch.path(), {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}));
  if (!files.start_folder.empty())
    LATHE_TRY(copy_files(files.start_folder, scratch.path(), {"generation_config.json"}));
  LATHE_TRY(write_file_atomically(scratch.path() / kStateFile, state_json(state, optimizer.steps()).dump(2) + "\n"));
  LATHE_TRY(sync_folder(scratch.path()));
  // Only a run that ended between two steps and began again meets its own step: the content is the same.
  fs::remove_all(path, error);
  fs::rename(scratch.path(), path, error);
  if (error) return Error{Errc::kIo, str(path, ": cannot give the checkpoint its name: ", error.message())};
  scratch.keep();
  LATHE_TRY(sync_folder(output));
  return path;
}

uint64_t checkpoint_bytes(const ParameterSet& parameters, std::string_view dtype) {
  const auto count = static_cast<uint64_t>(parameters.count());
  int64_t copied = 0;
  for (const Copy& copy : mtp_copies(parameters)) copied += parameters.list()[static_cast<size_t>(copy.of)].size;
  return count * (dtype == "f32" ? 12 : 14) + static_cast<uint64_t>(copied) * (dtype == "f32" ? 4 : 2);
}

std::optional<fs::path> latest_checkpoint(const fs::path& output) {
  const auto all = checkpoints_in(output);
  if (all.empty()) return std::nullopt;
  return all.back().second;
}

Result<RunState> load_run_state(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kStateFile;
  LATHE_TRY(const Json json, read_json(path));
  const Json* version = json.find("version");
  if (version == nullptr || !version->is_int() || version->as_int() != kVersion) {
    return Error{Errc::kUnsupported, str(path, ": expected version ", kVersion, ", found another")};
  }
  RunState out;
  for (const auto& [key, target] :
       {std::pair<std::string_view, int64_t*>{"step", &out.step}, {"tokens", &out.tokens}}) {
    const Json* value = json.find(key);
    if (value == nullptr || !value->is_int() || value->as_int() < 0) {
      return Error{Errc::kInvalidData, str(path, ": ", key, ": expected a count, found none")};
    }
    *target = value->as_int();
  }
  for (const auto& [key, target] :
       {std::pair<std::string_view, Json*>{"loader", &out.loader}, {"guard", &out.guard}, {"recipe", &out.recipe}}) {
    const Json* value = json.find(key);
    if (value == nullptr || !value->is_object()) {
      return Error{Errc::kInvalidData, str(path, ": ", key, ": expected an object, found none")};
    }
    *target = *value;
  }
  const Json* corpus = json.find("corpus");
  if (corpus != nullptr && corpus->is_string()) out.corpus = corpus->as_string();
  const Json* losses = json.find("recent_losses");
  if (losses != nullptr && losses->is_array()) {
    for (const Json& loss : losses->as_array()) out.recent_losses.push_back(loss.is_number() ? loss.as_double() : 0.0);
  }
  const Json* valid = json.find("valid_loss");
  out.has_valid_loss = valid != nullptr && valid->is_number();
  if (out.has_valid_loss) out.valid_loss = valid->as_double();
  return out;
}

Status load_arrays(const fs::path& checkpoint, ParameterSet& parameters, AdamW& optimizer) {
  LATHE_TRY(const Json json, read_json(checkpoint / kStateFile));
  const Json* steps = json.find("optimizer_steps");
  if (steps == nullptr || !steps->is_int() || steps->as_int() < 0) {
    return Error{Errc::kInvalidData, str(checkpoint / kStateFile, ": optimizer_steps: expected a count, found none")};
  }
  LATHE_TRY(const Checkpoint model, open_arrays(checkpoint / "model.safetensors"));
  LATHE_TRY(const Checkpoint arrays, open_arrays(checkpoint / kArraysFile));
  for (const Parameter& parameter : parameters.list()) {
    const std::string master = str(kMaster, parameter.name);
    if (arrays.find(master) != nullptr) {
      LATHE_TRY(copy_array(arrays, master, parameter, parameters.values()));
    } else {
      LATHE_TRY(copy_array(model, parameter.name, parameter, parameters.values()));
    }
    LATHE_TRY(copy_array(arrays, str(kFirst, parameter.name), parameter, optimizer.first_moments()));
    LATHE_TRY(copy_array(arrays, str(kSecond, parameter.name), parameter, optimizer.second_moments()));
  }
  optimizer.set_steps(steps->as_int());
  return {};
}

void remove_old_checkpoints(const fs::path& output, int64_t keep) {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(output, ignored)) {
    if (entry.path().filename().string().starts_with(kTemporary)) leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
  if (keep == 0) return;
  const auto all = checkpoints_in(output);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) {
    // First the file without which it counts as none: a kill in between leaves no half checkpoint behind.
    fs::remove(all[i].second / kStateFile, ignored);
    fs::remove_all(all[i].second, ignored);
  }
}

}  // namespace lathe::train
