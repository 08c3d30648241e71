// Scheduler: requests -> the next step's batch. Decode tokens first, then prompt chunks, oldest first, under a token
// budget. A request is admitted when the pages of its longest possible length are free, so a running request never
// fails for lack of them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "lathe/runtime/engine.h"
#include "lathe/runtime/text_stream.h"

namespace lathe {

// A request on its way.
struct Sequence {
  RequestId id = 0;
  Request request;
  OnFinished on_finished;
  Sampler sampler;
  TextStream text;
  SequenceCache cache;
  std::vector<int32_t> tokens;  // prompt and output
  int64_t computed = 0;         // tokens whose cache rows exist
  int64_t length_limit = 0;     // of tokens
  int64_t expanded_until = 0;
  Completion completion;
  double submitted_at = 0.0;
  double first_token_at = 0.0;

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }
};

// A packed batch with the storage its Step borrows from.
struct Batch {
  std::vector<int32_t> token_ids;
  std::vector<SequenceChunk> chunks;
  std::vector<int64_t> logit_rows;
  std::vector<Sequence*> sampled;  // the sequence of each logit row

  // Empties the batch and keeps its memory.
  void clear();

  Step step() const { return {.token_ids = token_ids, .chunks = chunks, .logit_rows = logit_rows}; }
};

class Scheduler {
 public:
  explicit Scheduler(int64_t max_batch_tokens) : max_batch_tokens_(max_batch_tokens) {}

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  bool idle() const { return waiting_.empty() && running_.empty(); }

  int64_t running() const { return static_cast<int64_t>(running_.size()); }

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

  // Admits what fits and fills `batch`; an empty batch means that nothing can run.
  void next_batch(Batch& batch);
  // Takes out a sequence that has ended (running or waiting).
  std::unique_ptr<Sequence> remove(RequestId id);

 private:
  void admit();

  int64_t max_batch_tokens_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
};

}  // namespace lathe
