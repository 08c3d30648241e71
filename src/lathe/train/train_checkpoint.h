// Checkpoints of a run: OUTPUT/checkpoint-N, a folder in HuggingFace layout that every program loads, with what is
// needed to go on bit for bit beside it. A folder appears under its name only when it is whole and on the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/adamw.h"
#include "lathe/train/parameters.h"

namespace lathe::train {

// Everything but the large arrays.
struct RunState {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // trained on
  Json loader;         // Loader::position()
  Json guard;          // SpikeGuard::state()
  Json recipe;         // recipe_json()
  std::string corpus;  // name of the folder of its token files, which depends on their content
  std::vector<double> recent_losses;
  double valid_loss = 0.0;  // of the last evaluation
  bool has_valid_loss = false;
};

// What goes into the folder from outside.
struct CheckpointFiles {
  Json config;                             // config.json
  std::filesystem::path tokenizer_folder;  // tokenizer files are copied from here
  std::filesystem::path start_folder;      // likewise generation_config.json, where there is one; "": new weights
  std::string dtype;                       // of model.safetensors: "f32", "bf16"
};

// Makes OUTPUT/checkpoint-<state.step>; one that is there already is replaced. kResourceExhausted when the disk is
// full: earlier checkpoints are then as they were.
Result<std::filesystem::path> save_checkpoint(const std::filesystem::path& output,
                                              const CheckpointFiles& files,
                                              const RunState& state,
                                              const ParameterSet& parameters,
                                              AdamW& optimizer);

// Bytes that save_checkpoint() writes, but for the small files.
uint64_t checkpoint_bytes(const ParameterSet& parameters, std::string_view dtype);

// The checkpoint with the highest step, or none. Unfinished ones are passed over.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& output);

// training_state.json. kInvalidData names the member that is missing or wrong.
Result<RunState> load_run_state(const std::filesystem::path& checkpoint);

// Values and moments, bit for bit. Errors name file and tensor.
Status load_arrays(const std::filesystem::path& checkpoint, ParameterSet& parameters, AdamW& optimizer);

// Removes all but the `keep` latest (0: none are removed), and what killed runs left half-written.
void remove_old_checkpoints(const std::filesystem::path& output, int64_t keep);

}  // namespace lathe::train
