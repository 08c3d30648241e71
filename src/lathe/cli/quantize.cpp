// lathe quantize: a model to a GGUF file of a smaller type.
#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/conversion.h"

namespace lathe::cli {

int run_quantize(const QuantizeOptions& options) {
  const Result<std::filesystem::path> source = model_folder(options.source);
  if (!source) return report(source.error());
  convert::Options work;
  work.source = *source;
  work.destination = options.destination;
  work.target = convert::Target::kGguf;
  work.type = quant_type_from_name(options.type);
  work.threads = static_cast<int>(options.threads);
  work.allow_requantise = options.allow_requantize;
  return run_conversion(std::move(work), options.json, options.quiet);
}

}  // namespace lathe::cli
