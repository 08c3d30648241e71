// Scheduler: requests -> the next step's batch, and who holds which pages of the cache (docs/serving-engine.md).
//
// A step: every request that has one token to compute (an answer) gets its row. Half of what is left of the budget, at
// least a token, goes to the oldest prompt, the rest to those with the fewest tokens to go: short ones do not wait for
// a long one, and a long one always moves on. What prompts leave over is spent on guessed tokens.
//
// Pages: a request is admitted, oldest first, when there are pages for its tokens so far and one more for every running
// request that may still grow. When a running one needs a page and none is left, the youngest gives up all of its own
// and is computed anew later. The oldest request is therefore never stopped by the others.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "lathe/runtime/drafter.h"
#include "lathe/runtime/engine.h"
#include "lathe/runtime/prefix_cache.h"
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
  std::vector<int32_t> tokens = {};  // prompt and output
  std::vector<int32_t> stop_tokens = {};
  int64_t computed = 0;              // tokens whose cache rows exist
  int64_t length_limit = 0;          // of tokens
  int64_t expanded_until = 0;        // by the prompt's length alone, also when output is computed anew
  int64_t published = 0;             // leading pages that are in the prefix cache
  uint64_t last_published = 0;       // CachedPage::id of the last of them
  int64_t draft_window = 0;          // guesses worth making now, at most Request::draft_tokens
  std::vector<int32_t> drafts = {};  // guesses in the current batch
  int64_t mtp_rows = 0;              // tokens whose rows of the multi-token prediction layer exist (MtpDrafter)
  std::vector<float> last_row = {};  // final-normed row of the last computed token (MtpDrafter)
  Completion completion = {};
  double submitted_at = 0.0;
  bool started = false;  // some of it was computed
  double first_token_at = 0.0;

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }

  int64_t uncomputed() const { return static_cast<int64_t>(tokens.size()) - computed; }

  bool may_grow() const { return pages_for(length_limit) > static_cast<int64_t>(cache.pages().size()); }

  // Makes fewer guesses after wrong ones, more after right ones.
  void learn_from_drafts(size_t accepted);
  void give_back_pages();  // and nothing is computed any more

  // Rows of the prompt still have log-probabilities to deliver.
  bool wants_prompt_logprobs() const {
    return request.prompt_logprobs >= 0 && completion.prompt_logprobs.size() < request.prompt.size();
  }
};

// What a batch's chunk computes: `tokens` of the sequence, then its drafts.
struct BatchEntry {
  Sequence* sequence = nullptr;  // null once the request has ended
  int64_t tokens = 0;
  int64_t first_logits = 0;     // index of its first row in Batch::logit_rows
  int64_t logits = 0;           // rows, the chunk's last ones
  int64_t logits_position = 0;  // of the first one
};

// A packed batch with the storage its Step borrows from.
struct Batch {
  std::vector<int32_t> token_ids;
  std::vector<SequenceChunk> chunks;
  std::vector<BatchEntry> entries;  // one per chunk
  std::vector<int64_t> logit_rows;

  // Empties the batch and keeps its memory.
  void clear();

  Step step() const { return {.token_ids = token_ids, .chunks = chunks, .logit_rows = logit_rows}; }
};

struct SchedulerLimits {
  int64_t batch_tokens = 512;  // rows of a step
  int64_t running = 64;        // requests that hold pages; at most batch_tokens, so that each gets its row
  int64_t extra_logits = 64;   // rows with logits of a step beyond one per running request
};

class Scheduler {
 public:
  // All of them must outlive the scheduler; `prefixes` may be null: no prefix cache.
  Scheduler(SchedulerLimits limits, PagePool& pool, PrefixCache* prefixes, Drafter& drafter)
      : limits_(limits), pool_(pool), prefixes_(prefixes), drafter_(drafter) {}

  // Ids ascend from call to call: a lower id is an older request.
  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  bool idle() const { return waiting_.empty() && running_.empty(); }

  int64_t running() const { return static_cast<int64_t>(running_.size()); }

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

  int64_t preemptions() const { return preemptions_; }

  // Finds pages, admits what fits and fills `batch`; an empty batch means that nothing waits or runs.
  void next_batch(Batch& batch);
  // The rows of `entry` are in the cache: counts them and publishes full pages. Drafts are not counted.
  void commit(const BatchEntry& entry);
  // Takes out a sequence that has ended (running or waiting).
  std::unique_ptr<Sequence> remove(RequestId id);

 private:
  void grow();
  void preempt_youngest();
  void admit();
  bool take_pages(Sequence& sequence);
  void take_prefix(Sequence& sequence);
  void copy_prefix(Sequence& sequence);
  void computed_elsewhere(Sequence& sequence, int64_t end) const;
  void publish(Sequence& sequence);
  // Of page `published` of the sequence, by its first `ids` ids.
  PrefixKey key_of(const Sequence& sequence, int64_t ids = kPageTokens) const;
  void share_out(std::vector<int64_t>& shares, int64_t budget, int64_t& extra_logits) const;
  void draft(int64_t budget, int64_t extra_logits);
  void add_chunk(Batch& batch, Sequence& sequence, int64_t tokens) const;

  SchedulerLimits limits_;
  PagePool& pool_;
  PrefixCache* prefixes_;
  Drafter& drafter_;
  // Oldest first, all running ones older than all waiting ones.
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<int64_t> shares_;  // scratch of next_batch
  int64_t preemptions_ = 0;
};

}  // namespace lathe
