// The scalar twins of the kernels under "attention", for reference/table.cpp.
#pragma once

#include "lathe/kernels/lane_tile.h"

namespace lathe::internal {

// As the functions of KernelTable with these names.
void reference_load_strip(const StripSource& source, float* strip);
void reference_lane_scores(const LaneScoresArgs& args);
void reference_lane_quantise(const LaneQuantiseArgs& args);
void reference_lane_scores_q8(const LaneScoresQ8Args& args);
void reference_lane_softmax(const LaneSoftmaxArgs& args);
void reference_lane_values(const LaneValuesArgs& args);
void reference_lane_values_q8(const LaneValuesQ8Args& args);
void reference_rows_to_lanes(const float* const* rows, int64_t n, float* lanes);
void reference_lanes_to_rows(const float* lanes, int64_t n, float* const* rows);

}  // namespace lathe::internal
