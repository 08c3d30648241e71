// A checkpoint: which files its tensors lie in, and one sorted index over all of them.
#include "lathe/formats/checkpoint.h"

#include <algorithm>
#include <functional>
#include <system_error>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/gguf_tensors.h"
#include "lathe/formats/json_cursor.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr uint64_t kMaxIndexBytes = 32 << 20;  // V3's has 9 MB, Kimi-K2's 14

Error invalid(std::string message) {
  return Error{Errc::kInvalidData, std::move(message)};
}

// weight_map, one row per tensor.
struct IndexRow {
  std::string tensor;
  std::string file;
};

Status read_weight_map(JsonCursor& cursor, std::vector<IndexRow>& rows) {
  LATHE_TRY(cursor.open_object());
  IndexRow row;
  while (true) {
    LATHE_TRY(const bool more, cursor.next_member(row.tensor));
    if (!more) return {};
    LATHE_TRY(row.file, cursor.read_string());
    if (!is_plain_file_name(row.file)) {
      return invalid(str(lathe::quoted(row.tensor),
                         ": expected a plain file name (letters, digits, '.', '_', '-'), found ",
                         lathe::quoted(row.file)));
    }
    rows.push_back(row);
  }
}

// {"metadata": ..., "weight_map": {tensor: file}}; the metadata is often wrong (spec section 1.1) and not used.
Status parse_index(std::string_view text, std::vector<IndexRow>& rows) {
  if (!is_valid_utf8(text)) return invalid("not valid UTF-8");
  JsonCursor cursor(text);
  bool has_map = false;
  LATHE_TRY(cursor.open_object());
  std::string key;
  while (true) {
    LATHE_TRY(const bool more, cursor.next_member(key));
    if (!more) break;
    if (key != "weight_map") {
      LATHE_TRY(cursor.skip_value());
      continue;
    }
    if (has_map) return invalid("duplicate key \"weight_map\"");
    has_map = true;
    const Status status = read_weight_map(cursor, rows);
    if (!status) return status.error().at("weight_map");
  }
  LATHE_TRY(cursor.finish());
  if (!has_map) return invalid("missing \"weight_map\"");
  if (rows.empty()) return invalid("weight_map: expected at least one tensor, found none");
  std::sort(rows.begin(), rows.end(), [](const IndexRow& a, const IndexRow& b) { return a.tensor < b.tensor; });
  const auto twice = std::adjacent_find(
      rows.begin(), rows.end(), [](const IndexRow& a, const IndexRow& b) { return a.tensor == b.tensor; });
  if (twice != rows.end()) return invalid(str("weight_map: duplicate key ", lathe::quoted(twice->tensor)));
  return {};
}

// Whether something of that name exists; a dangling link counts, so that opening it says what is wrong.
bool is_present(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

// The message for a folder without weights says what is there instead, when that is a known thing.
Error no_weights(const fs::path& folder) {
  for (const char* pickled : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"}) {
    if (is_present(folder / pickled)) {
      return Error{Errc::kUnsupported,
                   str(folder,
                       ": expected ",
                       kSingleName,
                       " or ",
                       kIndexName,
                       ", found ",
                       pickled,
                       ": pickled weights can run code and are not read")};
    }
  }
  return Error{Errc::kNotFound, str(folder, ": expected ", kSingleName, " or ", kIndexName, ", found neither")};
}

// The distinct file names of the rows, sorted. Missing ones are counted in one message: downloads stop half-way.
Result<std::vector<std::string>> shard_names(const fs::path& folder, const std::vector<IndexRow>& rows) {
  std::vector<std::string> names;
  names.reserve(rows.size());
  for (const IndexRow& row : rows) names.push_back(row.file);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  size_t missing = 0;
  const std::string* first = nullptr;
  for (const std::string& name : names) {
    if (is_present(folder / name)) continue;
    if (missing++ == 0) first = &name;
  }
  if (missing > 0) {
    return Error{
        Errc::kNotFound,
        str(folder / kIndexName, ": ", missing, " of ", names.size(), " files are missing, the first is ", *first)};
  }
  return names;
}

}  // namespace

Status Checkpoint::index_tensors() {
  size_t count = 0;
  for (const File& file : files_) count += file.tensors.size();
  by_name_.reserve(count);
  for (size_t f = 0; f < files_.size(); ++f) {
    for (size_t t = 0; t < files_[f].tensors.size(); ++t) {
      by_name_.push_back({static_cast<uint32_t>(f), static_cast<uint32_t>(t)});
    }
  }
  std::sort(
      by_name_.begin(), by_name_.end(), [&](const Location& a, const Location& b) { return at(a).name < at(b).name; });
  const auto twice = std::adjacent_find(
      by_name_.begin(), by_name_.end(), [&](const Location& a, const Location& b) { return at(a).name == at(b).name; });
  if (twice == by_name_.end()) return {};
  return invalid(str(folder_,
                     ": tensor ",
                     lathe::quoted(at(*twice).name),
                     " is stored twice, in ",
                     files_[twice->file].path.filename(),
                     " and in ",
                     files_[twice[1].file].path.filename()));
}

Status Checkpoint::add_safetensors(const fs::path& path) {
  LATHE_TRY(SafetensorsFile opened, SafetensorsFile::open(path));
  auto file = std::make_shared<const SafetensorsFile>(std::move(opened));
  std::vector<StoredTensor> tensors = file->tensors();
  files_.push_back({.path = path, .owner = std::move(file), .tensors = std::move(tensors)});
  return {};
}

Result<Checkpoint> Checkpoint::open(const std::shared_ptr<const GgufModel>& model) {
  Checkpoint checkpoint;
  checkpoint.folder_ = model->path();
  for (const GgufFile& file : model->files()) {
    LATHE_TRY(std::vector<StoredTensor> tensors, tensors_by_hf_name(file));
    checkpoint.files_.push_back({.path = file.path(), .owner = model, .tensors = std::move(tensors)});
  }
  LATHE_TRY(checkpoint.index_tensors());
  return checkpoint;
}

Result<Checkpoint> Checkpoint::open(const fs::path& path) {
  if (!is_gguf_path(path)) return open_folder(path);
  LATHE_TRY(const std::shared_ptr<const GgufModel> model, GgufModel::open(path));
  return open(model);
}

Result<Checkpoint> Checkpoint::in_memory(const fs::path& name,
                                         std::vector<StoredTensor> tensors,
                                         std::shared_ptr<const void> owner) {
  Checkpoint checkpoint;
  checkpoint.folder_ = name;
  checkpoint.files_.push_back({.path = name, .owner = std::move(owner), .tensors = std::move(tensors)});
  LATHE_TRY(checkpoint.index_tensors());
  return checkpoint;
}

Result<Checkpoint> Checkpoint::open_folder(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    return Error{Errc::kNotFound,
                 str(folder, ": expected a folder, found ", is_present(folder) ? "another kind of file" : "nothing")};
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const fs::path index_path = folder / kIndexName;
  if (!is_present(index_path)) {
    if (!is_present(folder / kSingleName)) return no_weights(folder);
    LATHE_TRY(checkpoint.add_safetensors(folder / kSingleName));
    LATHE_TRY(checkpoint.index_tensors());
    return checkpoint;
  }

  std::vector<IndexRow> rows;
  LATHE_TRY(const std::string text, read_file(index_path, kMaxIndexBytes));
  const Status parsed = parse_index(text, rows);
  if (!parsed) return parsed.error().at(index_path.string());
  LATHE_TRY(const std::vector<std::string> names, shard_names(folder, rows));
  for (const std::string& name : names) LATHE_TRY(checkpoint.add_safetensors(folder / name));
  LATHE_TRY(checkpoint.index_tensors());

  size_t listed = 0;
  const StoredTensor* unlisted = nullptr;
  auto row = rows.begin();  // both lists are sorted by name: one walk compares them
  for (const Location& location : checkpoint.by_name_) {
    const StoredTensor& tensor = checkpoint.at(location);
    if (row == rows.end() || tensor.name < row->tensor) {
      if (unlisted == nullptr) unlisted = &tensor;
      continue;
    }
    if (row->tensor != tensor.name || row->file != names[location.file]) break;
    ++row;
    ++listed;
  }
  if (row != rows.end()) {
    return invalid(
        str(index_path, ": tensor ", lathe::quoted(row->tensor), ": expected in ", row->file, ", not found there"));
  }
  if (unlisted != nullptr) {
    log_warning(index_path,
                ": lists ",
                listed,
                " of the ",
                checkpoint.by_name_.size(),
                " tensors that its files hold, the first it leaves out is ",
                lathe::quoted(unlisted->name));
  }
  return checkpoint;
}

const StoredTensor& Checkpoint::at(const Location& location) const {
  return files_[location.file].tensors[location.tensor];
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name, [&](const Location& a, std::string_view b) { return at(a).name < b; });
  return found != by_name_.end() && at(*found).name == name ? &at(*found) : nullptr;
}

std::vector<const StoredTensor*> Checkpoint::tensors() const {
  std::vector<const StoredTensor*> out;
  out.reserve(by_name_.size());
  for (const Location& location : by_name_) out.push_back(&at(location));
  return out;
}

fs::path Checkpoint::file_of(const StoredTensor& tensor) const {
  const std::less_equal<> not_after;
  for (const File& file : files_) {
    const std::vector<StoredTensor>& all = file.tensors;
    if (!all.empty() && not_after(all.data(), &tensor) && not_after(&tensor, &all.back())) return file.path;
  }
  return {};
}

uint64_t Checkpoint::total_bytes() const {
  uint64_t total = 0;
  for (const File& file : files_) {
    for (const StoredTensor& tensor : file.tensors) total += tensor.bytes.size();
  }
  return total;
}

}  // namespace lathe
