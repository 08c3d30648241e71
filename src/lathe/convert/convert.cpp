#include "lathe/convert/convert.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "lathe/base/json.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/convert/gguf_metadata.h"
#include "lathe/convert/hf_folder.h"
#include "lathe/convert/plan.h"
#include "lathe/convert/transfer.h"
#include "lathe/formats/gguf_config.h"
#include "lathe/formats/gguf_tokenizer.h"
#include "lathe/model/model_files.h"

namespace lathe::convert {

namespace fs = std::filesystem;

namespace {

// Where to convert from; everything that the plans borrow.
struct Source {
  ModelFiles files;
  ModelConfig config;
  Checkpoint checkpoint;
};

Result<Source> open_source(const fs::path& path) {
  LATHE_TRY(ModelFiles files, ModelFiles::open(path));
  LATHE_TRY(ParsedConfig parsed, files.config());
  for (const std::string& warning : parsed.warnings) log_warning(warning);
  LATHE_TRY(Checkpoint checkpoint, files.checkpoint());
  return Source{std::move(files), std::move(parsed.config), std::move(checkpoint)};
}

// Values that were rounded once should not be rounded again unnoticed.
Status check_requantising(std::span<const OutputTensor> tensors, bool allowed) {
  if (allowed) return {};
  for (const OutputTensor& tensor : tensors) {
    if (!tensor.rows->quantised() || !is_block_format(tensor.dtype) || tensor.rows->stored() == tensor.dtype) continue;
    return Error{Errc::kUnsupported,
                 str(tensor.name,
                     ": is ",
                     dtype_name(tensor.rows->first_dtype()),
                     " already; to quantise it again to ",
                     dtype_name(tensor.dtype),
                     " loses more than from the original: expected F32, F16, BF16 or FP8, or --allow-requantize")};
  }
  return {};
}

// general.file_type of what most values are in.
uint32_t file_type_of(std::span<const OutputTensor> tensors) {
  std::map<DType, int64_t> elements;
  for (const OutputTensor& tensor : tensors) {
    if (tensor.shape.size() > 1) elements[tensor.dtype] += tensor.rows->rows() * tensor.rows->cols();
  }
  DType usual = DType::kF32;
  int64_t most = 0;
  for (const auto& [dtype, count] : elements) {
    if (count > most) usual = dtype;
    most = std::max(most, count);
  }
  for (const std::string& name : quant_type_names()) {
    const QuantType type = *quant_type_from_name(name);
    if (format_of(type, {.name = "model.layers.1.mlp.up_proj.weight", .rows = 256, .cols = 256}) == usual) {
      return gguf_file_type(type);
    }
  }
  return 0;
}

// What a folder calls its model: the folder's name, or NAME of the hub cache's models--ORG--NAME/snapshots/COMMIT.
std::string name_of_folder(const fs::path& source) {
  fs::path folder = fs::absolute(source).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  const fs::path parent = folder.parent_path();
  if (parent.filename() != "snapshots") return folder.filename().string();
  const std::string cached = parent.parent_path().filename().string();
  const size_t dashes = cached.rfind("--");
  return dashes == std::string::npos ? cached : cached.substr(dashes + 2);
}

Result<Metadata> gguf_metadata(const Source& source, const Options& options, std::span<const OutputTensor> tensors) {
  if (source.files.is_gguf()) {
    std::optional<uint32_t> file_type;
    if (options.type) file_type = gguf_file_type(*options.type);
    Result<Metadata> copied = copied_metadata(source.files.gguf()->header(), file_type);
    if (!copied) return copied.error().at(options.source.string());
    return copied;
  }
  const uint32_t file_type = options.type ? gguf_file_type(*options.type) : file_type_of(tensors);
  LATHE_TRY(Metadata out, model_metadata(source.config, name_of_folder(options.source), file_type));
  LATHE_TRY(const GenerationDefaults defaults, source.files.generation_defaults());
  LATHE_TRY(Metadata tokenizer, tokenizer_metadata(options.source, source.config));
  for (Metadata more : {sampling_metadata(defaults), std::move(tokenizer)}) {
    std::move(more.begin(), more.end(), std::back_inserter(out));
  }
  return out;
}

void note_left_out(const Source& source) {
  if (source.config.num_nextn_predict_layers == 0) return;
  log_info("multi-token prediction layers (",
           source.config.num_nextn_predict_layers,
           ") are left out: GGUF readers do not use them");
}

Result<Report> to_gguf(const Source& source, const Options& options, ThreadPool& pool) {
  std::vector<OutputTensor> tensors;
  if (source.files.is_gguf()) {
    LATHE_TRY(tensors, plan_gguf_again(*source.files.gguf(), source.config, options.type));
  } else {
    LATHE_TRY(tensors, plan_gguf(source.checkpoint, source.config, options.type));
    note_left_out(source);
  }
  LATHE_TRY(check_requantising(tensors, options.allow_requantise));
  LATHE_TRY(const Metadata metadata, gguf_metadata(source, options, tensors));
  LATHE_TRY(GgufWriter writer, GgufWriter::create(options.destination));
  for (const auto& [key, value] : metadata) LATHE_TRY(writer.add_metadata(key, value));
  for (const OutputTensor& tensor : tensors) {
    LATHE_TRY(writer.add_tensor({tensor.name, tensor.dtype, tensor.shape}));
  }
  Transfer transfer(pool, options, tensors);
  const Sink sink = [&writer](std::span<const std::byte> bytes) { return writer.write(bytes); };
  for (const OutputTensor& tensor : tensors) LATHE_TRY(transfer.run(tensor, sink));
  const uint64_t file_bytes = writer.file_bytes();
  LATHE_TRY(writer.finish());
  Report report = transfer.take_report();
  report.file_bytes = file_bytes;
  return report;
}

std::string_view torch_name(DType dtype) {
  if (dtype == DType::kF32) return "float32";
  return dtype == DType::kF16 ? "float16" : "bfloat16";
}

// config.json of the new folder.
Result<Json> new_config(const Source& source, const fs::path& path, DType dtype) {
  Json config;
  if (source.files.is_gguf()) {
    LATHE_TRY(config, gguf_config(*source.files.gguf()));
  } else {
    LATHE_TRY(config, read_json(path / "config.json"));
  }
  const bool plain_attention = source.config.attention == AttentionKind::kGqa;
  Json::Object& members = config.as_object();
  std::erase_if(members, [&](const Json::Member& m) {
    if (m.first == "quantization_config") return true;
    // Rows of q and k are put back into the order that the architecture has by itself.
    return source.files.is_gguf() && plain_attention && m.first == "rope_interleave";
  });
  if (source.files.is_gguf()) {
    // What metadata leave unsaid, for readers with other defaults.
    config.set("num_key_value_heads", source.config.num_key_value_heads);
    config.set("hidden_act", "silu");
    config.set("attention_bias", false);
    if (source.config.n_routed_experts > 0) config.set("moe_layer_freq", source.config.moe_layer_freq);
  }
  config.set(config.find("dtype") != nullptr ? "dtype" : "torch_dtype", torch_name(dtype));
  return config;
}

Status copy_small_file(const fs::path& from, const fs::path& to) {
  std::error_code ignored;
  if (!fs::exists(from, ignored)) return {};
  constexpr uint64_t kMaxBytes = uint64_t{1} << 28;
  LATHE_TRY(const std::string text, read_file(from, kMaxBytes));
  return write_file_atomically(to, text);
}

// Tokenizer and generation defaults.
Status write_small_files(const Source& source, const fs::path& from, const fs::path& to) {
  if (!source.files.is_gguf()) {
    for (const char* name : {"tokenizer.json",
                             "tokenizer_config.json",
                             "special_tokens_map.json",
                             "chat_template.jinja",
                             "generation_config.json"}) {
      LATHE_TRY(copy_small_file(from / name, to / name));
    }
    return {};
  }
  LATHE_TRY(const Json generation, gguf_generation_config(*source.files.gguf()));
  LATHE_TRY(write_file_atomically(to / "generation_config.json", generation.dump(2) + "\n"));
  if (!source.files.has_tokenizer()) {
    log_warning(from, ": ", source.files.missing_tokenizer(), ": the new folder will have no tokenizer");
    return {};
  }
  LATHE_TRY(const GgufTokenizer tokenizer, gguf_tokenizer(*source.files.gguf()));
  LATHE_TRY(write_file_atomically(to / "tokenizer.json", tokenizer.tokenizer_json));
  return write_file_atomically(to / "tokenizer_config.json", tokenizer.tokenizer_config_json);
}

Result<uint64_t> write_shards(const fs::path& folder, std::span<const Shard> shards, Transfer& transfer) {
  uint64_t total = 0;
  for (const Shard& shard : shards) {
    LATHE_TRY(AtomicFile file, AtomicFile::create(folder / shard.name));
    const std::string header = shard_header(shard);
    LATHE_TRY(file.write(header));
    const Sink sink = [&file](std::span<const std::byte> bytes) { return file.write(bytes); };
    for (const OutputTensor& tensor : shard.tensors) LATHE_TRY(transfer.run(tensor, sink));
    LATHE_TRY(file.commit());
    total += header.size() + shard.bytes;
  }
  if (shards.size() > 1) {
    LATHE_TRY(write_file_atomically(folder / "model.safetensors.index.json", shard_index(shards)));
  }
  return total;
}

Result<Report> to_hf(const Source& source, const Options& options, ThreadPool& pool) {
  const DType dtype = options.dtype.value_or(usual_dtype(source.checkpoint));
  LATHE_TRY(const std::vector<OutputTensor> tensors,
            plan_hf(source.checkpoint, source.config, source.files.is_gguf(), dtype));
  LATHE_TRY(const Json config, new_config(source, options.source, dtype));
  LATHE_TRY(NewFolder folder, NewFolder::create(options.destination));
  Transfer transfer(pool, options, tensors);
  LATHE_TRY(const uint64_t file_bytes, write_shards(folder.temporary(), plan_shards(tensors), transfer));
  LATHE_TRY(write_small_files(source, options.source, folder.temporary()));
  LATHE_TRY(write_file_atomically(folder.temporary() / "config.json", config.dump(2) + "\n"));
  LATHE_TRY(folder.commit());
  Report report = transfer.take_report();
  report.file_bytes = file_bytes;
  return report;
}

}  // namespace

Result<Report> convert(const Options& options) {
  LATHE_TRY(const Source source, open_source(options.source));
  const int threads = options.threads > 0 ? options.threads : default_thread_count();
  LATHE_TRY(const std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads));
  return options.target == Target::kGguf ? to_gguf(source, options, *pool) : to_hf(source, options, *pool);
}

}  // namespace lathe::convert
