// GGUF on disk: mapped files, and models in several of them.
#include <algorithm>
#include <system_error>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/formats/gguf.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxParts = 99'999;  // as many as the five digits of the names can tell apart
constexpr size_t kDigits = 5;

Error invalid(const fs::path& path, std::string_view message) {
  return Error{Errc::kInvalidData, str(path, ": ", message)};
}

// The value of an integer key, or `fallback` when it is absent.
Result<int64_t> integer_or(const GgufFile& file, std::string_view key, int64_t least, int64_t most, int64_t fallback) {
  const GgufField* field = file.header().find(key);
  if (field == nullptr) return fallback;
  const std::optional<int64_t> value = field->integer();
  if (value && *value >= least && *value <= most) return *value;
  return invalid(
      file.path(),
      str("key \"", key, "\": expected an integer from ", least, " to ", most, ", found ", field->describe()));
}

std::string digits(int64_t number) {
  const std::string text = str(number);
  return std::string(kDigits - std::min(kDigits, text.size()), '0') + text;
}

// "-00002-of-00007.gguf"
std::string part_suffix(int64_t part, int64_t count) {
  return str("-", digits(part + 1), "-of-", digits(count), ".gguf");
}

}  // namespace

bool is_gguf_path(const fs::path& path) {
  std::error_code ignored;
  return ascii_lowered(path.extension().string()) == ".gguf" && !fs::is_directory(path, ignored);
}

Result<GgufFile> GgufFile::open(const fs::path& path) {
  GgufFile out;
  LATHE_TRY(out.map_, MappedFile::open(path));
  const std::span<const std::byte> bytes = out.map_->bytes();
  Result<GgufHeader> header = parse_gguf_header(bytes);
  if (!header) return header.error().at(path.string());
  out.header_ = std::move(*header);
  out.tensors_.reserve(out.header_.tensors.size());
  for (const GgufHeader::Tensor& t : out.header_.tensors) {
    out.tensors_.push_back(t.tensor);
    out.tensors_.back().bytes = bytes.subspan(t.begin, t.size);
  }
  return out;
}

Status GgufModel::open_parts(const fs::path& first, int64_t count) {
  const std::string name = first.filename().string();
  const std::string suffix = part_suffix(0, count);
  if (!name.ends_with(suffix)) {
    return invalid(first, str("expected a name that ends in ", suffix, " for the first of ", count, " files"));
  }
  const std::string stem = name.substr(0, name.size() - suffix.size());
  for (int64_t part = 1; part < count; ++part) {
    const fs::path path = first.parent_path() / (stem + part_suffix(part, count));
    std::error_code ignored;
    if (fs::symlink_status(path, ignored).type() == fs::file_type::not_found) {
      return Error{Errc::kNotFound,
                   str(path, ": expected part ", part + 1, " of ", count, " of the model, found nothing")};
    }
    LATHE_TRY(GgufFile file, GgufFile::open(path));
    LATHE_TRY(const int64_t said, integer_or(file, "split.no", 0, kMaxParts, -1));
    LATHE_TRY(const int64_t said_count, integer_or(file, "split.count", 0, kMaxParts, -1));
    if (said != part || said_count != count) {
      return invalid(path,
                     str("key \"split.no\": expected ", part, " of ", count, ", found ", said, " of ", said_count));
    }
    files_.push_back(std::move(file));
  }
  return {};
}

Status GgufModel::index_tensors() {
  for (const GgufFile& file : files_) {
    for (const StoredTensor& tensor : file.tensors()) by_name_.push_back(&tensor);
  }
  std::sort(by_name_.begin(), by_name_.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  const auto twice = std::adjacent_find(
      by_name_.begin(), by_name_.end(), [](const auto* a, const auto* b) { return a->name == b->name; });
  if (twice == by_name_.end()) return {};
  return invalid(path(), str("tensor ", lathe::quoted((*twice)->name), " is stored in two files of the model"));
}

Result<std::shared_ptr<const GgufModel>> GgufModel::open(const fs::path& path) {
  std::shared_ptr<GgufModel> model(new GgufModel());
  LATHE_TRY(GgufFile first, GgufFile::open(path));
  LATHE_TRY(const int64_t count, integer_or(first, "split.count", 0, kMaxParts, 1));
  LATHE_TRY(const int64_t part, integer_or(first, "split.no", 0, kMaxParts, 0));
  LATHE_TRY(const int64_t tensors, integer_or(first, "split.tensors.count", 0, INT32_MAX, -1));
  if (part != 0) {
    return Error{
        Errc::kInvalidData,
        str(path, ": expected the first file of the model (..", part_suffix(0, count), "), found part ", part + 1)};
  }
  model->files_.push_back(std::move(first));
  if (count > 1) LATHE_TRY(model->open_parts(path, count));
  LATHE_TRY(model->index_tensors());
  if (count > 1 && tensors >= 0 && static_cast<uint64_t>(tensors) != model->by_name_.size()) {
    return invalid(path,
                   str("key \"split.tensors.count\": expected the ",
                       model->by_name_.size(),
                       " tensors of all files, found ",
                       tensors));
  }
  return std::shared_ptr<const GgufModel>(std::move(model));
}

const StoredTensor* GgufModel::find(std::string_view name) const {
  const auto at = std::lower_bound(
      by_name_.begin(), by_name_.end(), name, [](const StoredTensor* a, std::string_view b) { return a->name < b; });
  return at != by_name_.end() && (*at)->name == name ? *at : nullptr;
}

}  // namespace lathe
