// Muon against its definition in double: singular values, steps, and who moves what.
#include "lathe/train/muon.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "lathe/model/shapes.h"
#include "lathe/train/adamw.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using Doubles = std::vector<double>;

Doubles random_doubles(int64_t count, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Doubles out(static_cast<size_t>(count));
  for (double& value : out) value = normal(engine);
  return out;
}

// [count, n] rows that are orthogonal and of length 1 (Gram and Schmidt, twice for exactness).
Doubles orthonormal_rows(int64_t count, int64_t n, uint64_t seed) {
  Doubles rows = random_doubles(count * n, seed);
  for (int64_t i = 0; i < count; ++i) {
    double* row = rows.data() + i * n;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < i; ++j) {
        const double* other = rows.data() + j * n;
        double along = 0.0;
        for (int64_t k = 0; k < n; ++k) along += row[k] * other[k];
        for (int64_t k = 0; k < n; ++k) row[k] -= along * other[k];
      }
      double length = 0.0;
      for (int64_t k = 0; k < n; ++k) length += row[k] * row[k];
      for (int64_t k = 0; k < n; ++k) row[k] /= std::sqrt(length);
    }
  }
  return rows;
}

// sum over i of s_i u_i v_i^T: [rows, columns] from u [side, rows] and v [side, columns].
Doubles compose(const Doubles& s, const Doubles& u, const Doubles& v, int64_t rows, int64_t columns) {
  Doubles out(static_cast<size_t>(rows * columns), 0.0);
  for (size_t i = 0; i < s.size(); ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      const double left = s[i] * u[i * static_cast<size_t>(rows) + static_cast<size_t>(r)];
      for (int64_t c = 0; c < columns; ++c) {
        out[static_cast<size_t>(r * columns + c)] +=
            left * v[i * static_cast<size_t>(columns) + static_cast<size_t>(c)];
      }
    }
  }
  return out;
}

double quintic(double s, int64_t iterations) {
  for (int64_t i = 0; i < iterations; ++i) s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * s * s * s * s * s;
  return s;
}

void run_orthogonalise(int64_t rows, int64_t columns, int64_t iterations, std::vector<float>& x) {
  Workspace memory = Workspace::create(orthogonalise_floats(rows, columns)).value();
  orthogonalise(kernels(), rows, columns, iterations, x.data(), memory.take(memory.capacity()));
}

// The same in double, straight from the definition.
Doubles reference_orthogonal(Doubles x, int64_t rows, int64_t columns, int64_t iterations) {
  double norm = 0.0;
  for (const double value : x) norm += value * value;
  for (double& value : x) value /= std::sqrt(norm);
  const auto product = [](const Doubles& a, const Doubles& b, int64_t m, int64_t k, int64_t n) {
    Doubles out(static_cast<size_t>(m * n), 0.0);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t p = 0; p < k; ++p) {
        for (int64_t j = 0; j < n; ++j) {
          out[static_cast<size_t>(i * n + j)] += a[static_cast<size_t>(i * k + p)] * b[static_cast<size_t>(p * n + j)];
        }
      }
    }
    return out;
  };
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    Doubles transposed(x.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        transposed[static_cast<size_t>(c * rows + r)] = x[static_cast<size_t>(r * columns + c)];
      }
    }
    const Doubles gram = product(x, transposed, rows, columns, rows);
    const Doubles once = product(gram, x, rows, rows, columns);
    const Doubles twice = product(gram, once, rows, rows, columns);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] - 4.7750 * once[i] + 2.0315 * twice[i];
  }
  return x;
}

void expect_close(std::span<const float> actual, std::span<const double> expected, double relative) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    worst = std::max(worst, std::fabs(actual[i] - expected[i]));
  }
  EXPECT_LE(worst, relative * largest);
}

TEST(Orthogonalise, MapsEverySingularValueAndKeepsItsVectors) {
  constexpr int64_t kIterations = 5;
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{24, 40}, {40, 24}, {32, 32}, {1, 50}, {300, 7}}) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << columns);
    const int64_t side = std::min(rows, columns);
    const Doubles u = orthonormal_rows(side, rows, 1);
    const Doubles v = orthonormal_rows(side, columns, 2);
    Doubles s(static_cast<size_t>(side));
    for (size_t i = 0; i < s.size(); ++i) s[i] = 3.0 / static_cast<double>(i + 1);
    const Doubles whole = compose(s, u, v, rows, columns);
    std::vector<float> x(whole.begin(), whole.end());
    run_orthogonalise(rows, columns, kIterations, x);
    double norm = 0.0;
    for (const double value : s) norm += value * value;
    Doubles mapped = s;
    for (double& value : mapped) value = quintic(value / std::sqrt(norm), kIterations);
    expect_close(x, compose(mapped, u, v, rows, columns), 1e-4);
  }
}

TEST(Orthogonalise, FiveIterationsBringSingularValuesNearOne) {
  for (double s = 1.0 / 600.0; s <= 1.0; s += 1e-5) {
    EXPECT_GT(quintic(s, 5), 0.68) << s;
    EXPECT_LT(quintic(s, 5), 1.21) << s;
  }
}

TEST(Orthogonalise, AZeroMatrixStaysZero) {
  std::vector<float> x(12 * 5, 0.0F);
  run_orthogonalise(12, 5, 5, x);
  EXPECT_TRUE(std::ranges::all_of(x, [](float value) { return value == 0.0F; }));
}

// Two hidden matrices, a head and a norm.
std::vector<Parameter> four_parameters() {
  std::vector<Parameter> list = {{.name = "wide", .shape = {6, 10}, .size = 60, .decay = true, .hidden = true},
                                 {.name = "lm_head.weight", .shape = {9, 5}, .size = 45, .decay = true},
                                 {.name = "tall", .shape = {18, 4}, .size = 72, .decay = true, .hidden = true},
                                 {.name = "norm.weight", .shape = {7}, .size = 7}};
  int64_t end = 0;
  for (Parameter& p : list) {
    p.offset = Workspace::padded(end);
    end = p.offset + p.size;
  }
  return list;
}

struct Moved {
  std::vector<float> values;
  std::vector<float> momenta;
};

constexpr double kRate = 0.01;
constexpr double kFactor = 0.5;
constexpr int64_t kSteps = 3;

std::vector<float> gradients_of(int64_t step, int64_t size) {
  const Doubles some = random_doubles(size, static_cast<uint64_t>(100 + step));
  return {some.begin(), some.end()};
}

// With values to start from.
ParameterSet four_random_parameters() {
  ParameterSet set = ParameterSet::create(four_parameters()).value();
  for (size_t i = 0; i < set.list().size(); ++i) {
    const Doubles start = random_doubles(set.list()[i].size, i);
    std::ranges::copy(start, set.values(static_cast<int64_t>(i)).begin());
  }
  return set;
}

void set_gradients(ParameterSet& set, int64_t step) {
  for (size_t i = 0; i < set.list().size(); ++i) {
    const std::vector<float> gradient = gradients_of(step, set.list()[i].size);
    std::ranges::copy(gradient, set.gradients(static_cast<int64_t>(i)).begin());
  }
}

Moved move_all(int threads) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(threads).value();
  ParameterSet set = four_random_parameters();
  AdamW adamw = AdamW::create({.hidden_matrices = false}, set.size(), *pool, kernels()).value();
  Muon muon = Muon::create({.momentum = 0.9, .weight_decay = 0.2}, set.list(), *pool, kernels()).value();
  for (int64_t step = 0; step < kSteps; ++step) {
    set_gradients(set, step);
    adamw.step(set, kRate, kFactor);
    muon.step(set, adamw.first_moments(), kRate, kFactor);
  }
  return {{set.values().begin(), set.values().end()}, {adamw.first_moments().begin(), adamw.first_moments().end()}};
}

TEST(Muon, StepsAreThoseOfTheDefinition) {
  const Moved moved = move_all(2);
  const std::vector<Parameter> list = four_parameters();
  for (size_t i = 0; i < list.size(); ++i) {
    const Parameter& p = list[i];
    if (!p.hidden) continue;
    SCOPED_TRACE(p.name);
    const int64_t rows = p.shape[0];
    const int64_t columns = p.shape[1];
    const Doubles start = random_doubles(p.size, i);
    Doubles value(start.size());
    std::ranges::transform(start, value.begin(), [](double v) { return static_cast<double>(static_cast<float>(v)); });
    Doubles momentum(value.size(), 0.0);
    for (int64_t step = 0; step < kSteps; ++step) {
      const std::vector<float> gradient = gradients_of(step, p.size);
      Doubles update(value.size());
      for (size_t j = 0; j < value.size(); ++j) {
        momentum[j] = 0.9 * momentum[j] + kFactor * gradient[j];
        update[j] = kFactor * gradient[j] + 0.9 * momentum[j];
      }
      update = reference_orthogonal(update, rows, columns, 5);
      const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
      for (size_t j = 0; j < value.size(); ++j) value[j] -= kRate * (scale * update[j] + 0.2 * value[j]);
    }
    const auto at = static_cast<size_t>(p.offset);
    const auto size = static_cast<size_t>(p.size);
    expect_close(std::span(moved.values).subspan(at, size), value, 1e-5);
    expect_close(std::span(moved.momenta).subspan(at, size), momentum, 1e-6);
  }
}

TEST(Muon, TheRestIsAdamWs) {
  const Moved moved = move_all(2);
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(1).value();
  ParameterSet set = four_random_parameters();
  AdamW adamw = AdamW::create({}, set.size(), *pool, kernels()).value();
  for (int64_t step = 0; step < kSteps; ++step) {
    set_gradients(set, step);
    adamw.step(set, kRate, kFactor);
  }
  for (size_t i = 0; i < set.list().size(); ++i) {
    const Parameter& p = set.list()[i];
    const bool same = std::memcmp(set.values().data() + p.offset,
                                  moved.values.data() + p.offset,
                                  static_cast<size_t>(p.size) * sizeof(float)) == 0;
    EXPECT_EQ(same, !p.hidden) << p.name;
  }
}

TEST(Muon, ThreadsChangeNoBit) {
  const Moved one = move_all(1);
  const Moved three = move_all(3);
  EXPECT_EQ(std::memcmp(one.values.data(), three.values.data(), one.values.size() * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(one.momenta.data(), three.momenta.data(), one.momenta.size() * sizeof(float)), 0);
}

TEST(Muon, MovesMatricesBetweenHiddenValues) {
  const ModelConfig config = parse_config(testing::tiny_v2_config())->config;
  for (const Parameter& p : model_parameters(config)) {
    const bool outer = p.name == "model.embed_tokens.weight" || p.name == "lm_head.weight";
    EXPECT_EQ(p.hidden, p.shape.size() == 2 && !outer) << p.name;
  }
}

}  // namespace
}  // namespace lathe
