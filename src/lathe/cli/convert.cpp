// lathe convert: a model from one format to another, without quantising.
#include "lathe/convert/convert.h"

#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/conversion.h"

namespace lathe::cli {

int run_convert(const ConvertOptions& options) {
  const Result<std::filesystem::path> source = model_folder(options.source);
  if (!source) return report(source.error());
  convert::Options work;
  work.source = *source;
  work.destination = options.destination;
  work.target = options.to == "hf" ? convert::Target::kHf : convert::Target::kGguf;
  work.threads = static_cast<int>(options.threads);
  work.type = quant_type_from_name(options.dtype);  // nothing for "auto"
  if (options.dtype == "f32") work.dtype = DType::kF32;
  if (options.dtype == "f16") work.dtype = DType::kF16;
  if (options.dtype == "bf16") work.dtype = DType::kBF16;
  return run_conversion(std::move(work), options.json, options.quiet);
}

}  // namespace lathe::cli
