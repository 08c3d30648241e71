// Plain scalar attention with (query, head) pairs in lanes: double accumulators, the oracle of attention-inl.h.
#include "lathe/kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lathe/base/scalar.h"

namespace lathe::internal {

void reference_load_strip(const StripSource& s, float* strip) {
  std::fill_n(strip, kStripFloats, 0.0F);
  for (int64_t row = 0; row < s.rows; ++row) {
    decode_cache_row(s.format, s.data + row * s.stride, s.elements, s.first, s.cols, strip + row * kStripColumns);
  }
}

void reference_lane_scores(const LaneScoresArgs& a) {
  const int64_t keys = (a.keys + 15) / 16 * 16;
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t key = 0; key < keys; ++key) {
      for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
        float& score = a.scores[g * kLaneScores + key * kLaneGroup + lane];
        double sum = a.accumulate ? score : 0.0;
        for (int64_t c = 0; c < a.cols; ++c) {
          sum += static_cast<double>(a.strip[key * kStripColumns + c]) * a.q[g * a.q_stride + c * kLaneGroup + lane];
        }
        score = static_cast<float>(sum);
      }
    }
  }
}

void reference_lane_quantise(const LaneQuantiseArgs& a) {
  for (int64_t block = 0; block < cache_groups(a.cols); ++block) {
    std::byte* out = a.out + block * kLaneBlockBytes;
    const int64_t cols = std::min(kCacheGroup, a.cols - block * kCacheGroup);
    for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
      float most = 0.0F;
      bool finite = true;
      const auto at = [&](int64_t c) { return c < cols ? a.q[(block * kCacheGroup + c) * kLaneGroup + lane] : 0.0F; };
      for (int64_t c = 0; c < kCacheGroup; ++c) {
        finite = finite && std::isfinite(at(c));
        most = std::max(most, std::fabs(at(c)));
      }
      const bool zero = !finite || most < kLeastLaneMagnitude;
      int32_t sum = 0;
      for (int64_t c = 0; c < kCacheGroup; ++c) {
        const auto code = static_cast<int32_t>(zero ? 0.0F : std::nearbyint(at(c) * (127.0F / most)));
        sum += code;
        out[c / 4 * 4 * kLaneGroup + lane * 4 + c % 4] = static_cast<std::byte>(code);
      }
      const float scale = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0F : most / 127.0F;
      const int32_t offset = -128 * sum;
      std::memcpy(out + kCacheGroup * kLaneGroup + 4 * lane, &scale, 4);
      std::memcpy(out + kCacheGroup * kLaneGroup + 4 * kLaneGroup + 4 * lane, &offset, 4);
    }
  }
}

namespace {

// Codes and scales of q8 rows, by key and element.
struct Q8Rows {
  const std::byte* rows;
  int64_t elements;

  const std::byte* row(int64_t key) const { return rows + key * cache_row_bytes(CacheFormat::kQ8, elements); }

  int code(int64_t key, int64_t element) const { return static_cast<int>(row(key)[element]) - 128; }

  float scale(int64_t key, int64_t element) const {
    uint16_t d = 0;
    std::memcpy(&d, row(key) + cache_groups(elements) * kCacheGroup + element / kCacheGroup * 2, 2);
    return f16_to_float(d);
  }
};

}  // namespace

void reference_lane_scores_q8(const LaneScoresQ8Args& a) {
  const Q8Rows rows{a.rows, a.elements};
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t key = 0; key < (a.keys + 15) / 16 * 16; ++key) {
      for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
        float score = 0.0F;
        for (int64_t block = 0; block < a.blocks && key < a.keys; ++block) {
          const int64_t first = a.first + block * kCacheGroup;
          const std::byte* q = a.q + g * a.q_stride + block * kLaneBlockBytes;
          int32_t sum = 0;
          for (int64_t c = 0; c < kCacheGroup; ++c) {
            sum += rows.code(key, first + c) * static_cast<int8_t>(q[c / 4 * 4 * kLaneGroup + lane * 4 + c % 4]);
          }
          float scale = 0.0F;
          std::memcpy(&scale, q + kCacheGroup * kLaneGroup + 4 * lane, 4);
          score = std::fma(static_cast<float>(sum), rows.scale(key, first) * scale, score);
        }
        a.scores[g * kLaneScores + key * kLaneGroup + lane] = score;
      }
    }
  }
}

void reference_lane_softmax(const LaneSoftmaxArgs& a) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const int64_t keys = (a.keys + 15) / 16 * 16;
  for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
    const float old_maximum = a.maximum[lane];
    float maximum = old_maximum;
    for (int64_t key = 0; key < keys; ++key) {
      float& score = a.scores[key * kLaneGroup + lane];
      score = key < a.visible[lane] ? score * a.scale : kLowest;
      if (score > maximum) maximum = score;  // never with NaN
    }
    const double shift = maximum == kLowest ? 0.0 : maximum;
    double sum = 0.0;
    for (int64_t key = 0; key < keys; ++key) {
      float& score = a.scores[key * kLaneGroup + lane];
      const double e = std::exp(score - shift);
      score = static_cast<float>(e);
      sum += e;
    }
    const double factor = std::exp(old_maximum - shift);
    a.maximum[lane] = maximum;
    a.sum[lane] = static_cast<float>(a.sum[lane] * factor + sum);
    a.factor[lane] = static_cast<float>(factor);
  }
}

void reference_lane_values(const LaneValuesArgs& a) {
  const int64_t keys = (a.keys + 15) / 16 * 16;
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t c = 0; c < lane_columns(a.cols); ++c) {
      for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
        float& out = a.out[g * a.out_stride + c * kLaneGroup + lane];
        double sum = static_cast<double>(out) * a.factor[g * kLaneGroup + lane];
        for (int64_t key = 0; key < keys; ++key) {
          sum += static_cast<double>(a.strip[key * kStripColumns + c]) *
                 a.weights[g * kLaneScores + key * kLaneGroup + lane];
        }
        out = static_cast<float>(sum);
      }
    }
  }
}

void reference_lane_values_q8(const LaneValuesQ8Args& a) {
  const Q8Rows rows{a.rows, a.elements};
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t c = 0; c < a.blocks * kCacheGroup; ++c) {
      const int64_t element = a.first + c;
      for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
        float most_scale = 0.0F;
        float spoiled = 0.0F;  // NaN when something is not finite
        for (int64_t key = 0; key < a.visible[g * kLaneGroup + lane]; ++key) {
          most_scale = std::max(most_scale, rows.scale(key, element));
          spoiled += rows.scale(key, element) * 0.0F;
        }
        const float to_integer = most_scale > 0.0F ? kMostLaneWeight / most_scale : 0.0F;
        const float* weights = a.weights + g * kLaneScores + lane;
        float most = 0.0F;
        for (int64_t key = 0; key < a.keys; ++key) {
          most = std::max(most, weights[key * kLaneGroup]);
          spoiled += weights[key * kLaneGroup] * 0.0F;
        }
        const float inverse = most < kLeastLaneWeight ? 0.0F : 1.0F / most;
        int64_t sum = 0;
        for (int64_t key = 0; key < a.keys && !std::isnan(spoiled); ++key) {
          const float weight = (weights[key * kLaneGroup] * inverse) * (rows.scale(key, element) * to_integer);
          sum += static_cast<int64_t>(std::nearbyint(weight)) * rows.code(key, element);
        }
        float& out = a.out[g * a.out_stride + c * kLaneGroup + lane];
        const float step = most * (most_scale / kMostLaneWeight) + spoiled;
        out = std::fma(static_cast<float>(sum), step, out * a.factor[g * kLaneGroup + lane]);
      }
    }
  }
}

void reference_rows_to_lanes(const float* const* rows, int64_t n, float* lanes) {
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t i = 0; i < kLaneGroup; ++i) lanes[k * kLaneGroup + i] = rows[i] != nullptr ? rows[i][k] : 0.0F;
  }
}

void reference_lanes_to_rows(const float* lanes, int64_t n, float* const* rows) {
  for (int64_t i = 0; i < kLaneGroup; ++i) {
    if (rows[i] == nullptr) continue;
    for (int64_t k = 0; k < n; ++k) rows[i][k] = lanes[k * kLaneGroup + i];
  }
}

}  // namespace lathe::internal
