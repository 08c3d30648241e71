// Operations of training against the golden vectors (float64), and the rules of token dropping.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lathe/tensor/workspace.h"
#include "lathe/train/adamw.h"
#include "lathe/train/balance.h"
#include "lathe/train/cross_entropy.h"
#include "lathe/train/router.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_dir;
using testing::GoldenFile;

Json golden_ops(const char* file) {
  const Result<Json> json = read_json(golden_dir() / "ops" / "ops.json");
  EXPECT_TRUE(json.has_value());
  return *json->find(file);
}

// Largest |a - e| against the largest |e|.
void expect_near_largest(std::span<const float> actual, std::span<const float> expected, double relative) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
    worst = std::max(worst, std::fabs(static_cast<double>(actual[i]) - expected[i]));
  }
  EXPECT_LE(worst, relative * largest);
}

// A pool, scratch for products and a context over them.
struct Bench {
  std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  Workspace memory = Workspace::create(2 * kSgemmScratchFloats).value();
  TrainContext context{kernels(), *pool, memory.take(2 * kSgemmScratchFloats)};
};
