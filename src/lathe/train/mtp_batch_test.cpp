#include "lathe/train/mtp_batch.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

using Ids = std::vector<int32_t>;
using Rows = std::vector<int64_t>;

constexpr int32_t kNone = kIgnoredTarget;

// Two sequences: the first has a document of four tokens and one of a single token; the second one of three that goes
// on after its end, so that its last target is known.
TEST(MtpBatch, TakesEveryTokenWhoseFollowingOneIsKnown) {
  const Ids ids{1, 2, 3, 4, 5, 6, 7, 8};
  const Ids targets{2, 3, 4, kNone, kNone, 7, 8, 9};
  const Rows sequences{0, 5};
  const Rows documents{0, 4, 5};
  const std::vector<uint64_t> names{70, 71};
  const std::vector<float> weights{.1F, .2F, .3F, .4F, .5F, .6F, .7F, .8F};
  MtpRows rows;
  select_mtp_rows({.token_ids = ids,
                   .targets = targets,
                   .sequences = sequences,
                   .documents = documents,
                   .sequence_ids = names,
                   .target_weights = weights},
                  rows);
  EXPECT_EQ(rows.rows, (Rows{0, 1, 2, 5, 6, 7}));
  EXPECT_EQ(rows.token_ids, (Ids{2, 3, 4, 7, 8, 9}));
  EXPECT_EQ(rows.targets, (Ids{3, 4, kNone, 8, 9, kNone}));
  EXPECT_EQ(rows.documents, (Rows{0, 3}));
  EXPECT_EQ(rows.sequences, (Rows{0, 3}));
  EXPECT_EQ(rows.sequence_ids, names);
  EXPECT_EQ(rows.target_weights, (std::vector<float>{.2F, .3F, .4F, .7F, .8F, 0.0F}));
}

// A target that is not counted still is a token that follows, and a sequence of single tokens has no row.
TEST(MtpBatch, LeavesOutWhatHasNoRow) {
  const Ids ids{1, 2, 3, 4, 5};
  const Ids targets{kNone, kNone, kNone, kNone, kNone};
  const Rows sequences{0, 2};
  const Rows documents{0, 1, 2};
  const std::vector<uint64_t> names{70, 71};
  MtpRows rows;
  select_mtp_rows({.token_ids = ids,
                   .targets = targets,
                   .sequences = sequences,
                   .documents = documents,
                   .sequence_ids = names,
                   .target_weights = {}},
                  rows);
  EXPECT_EQ(rows.rows, (Rows{2, 3}));
  EXPECT_EQ(rows.token_ids, (Ids{4, 5}));
  EXPECT_EQ(rows.targets, (Ids{kNone, kNone}));
  EXPECT_EQ(rows.documents, Rows{0});
  EXPECT_EQ(rows.sequences, Rows{0});
  EXPECT_EQ(rows.sequence_ids, std::vector<uint64_t>{71});
  EXPECT_TRUE(rows.target_weights.empty());
  EXPECT_EQ(rows.batch().token_ids.size(), 2U);
}

}  // namespace
}  // namespace lathe
